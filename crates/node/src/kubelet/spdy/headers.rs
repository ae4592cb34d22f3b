//! SPDY/3's header blocks: names and values, compressed against a dictionary that the protocol fixes.

use std::fmt::Write as _;

use flate2::{Decompress, FlushDecompress, Status};

/// The longest block, unpacked.
const LONGEST: usize = 64 * 1024;

/// The dictionary's first part: each word with its length before it.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The dictionary's second part.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
                    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 \
                    Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service \
                    UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, \
                    Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
                    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
                    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS {
        dictionary.extend_from_slice(&u32::try_from(word.len()).unwrap_or_default().to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TEXT.as_bytes());
    dictionary
}

/// A block that is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    /// It cannot be unpacked.
    #[error("a header block cannot be unpacked")]
    Packed,
    /// It is longer than anything that is sent here.
    #[error("a header block is longer than {LONGEST} bytes")]
    Long,
    /// It ends before it should, or holds what is not text.
    #[error("a header block is cut off or holds no text")]
    Shape,
}

/// Unpacks the blocks of one connection, in order: each builds on those before.
#[derive(Debug)]
pub(crate) struct Unpacker {
    stream: Decompress,
    has_begun: bool,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        let mut stream = Decompress::new(false);
        // What a stream refers to that begins with a dictionary is what an uncompressed block would have left there.
        let dictionary = dictionary();
        let length = u16::try_from(dictionary.len()).unwrap_or_default();
        let mut block = vec![0];
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&(!length).to_le_bytes());
        block.extend_from_slice(&dictionary);
        let mut unpacked = Vec::with_capacity(dictionary.len() + 1);
        let _ = stream.decompress_vec(&block, &mut unpacked, FlushDecompress::Sync);
        Self {
            stream,
            has_begun: false,
        }
    }

    /// The names and values of one block.
    pub(crate) fn read(&mut self, mut block: &[u8]) -> Result<Vec<(String, String)>, Error> {
        if !self.has_begun {
            // The stream's own header, with the dictionary's checksum if it names one.
            let flags = *block.get(1).ok_or(Error::Packed)?;
            let length = if flags & 0x20 == 0 { 2 } else { 6 };
            block = block.get(length..).ok_or(Error::Packed)?;
            self.has_begun = true;
        }
        let mut unpacked = Vec::with_capacity(1024);
        while !block.is_empty() {
            let before = (self.stream.total_in(), unpacked.len());
            let status = self
                .stream
                .decompress_vec(block, &mut unpacked, FlushDecompress::Sync)
                .map_err(|_| Error::Packed)?;
            let taken = usize::try_from(self.stream.total_in() - before.0).unwrap_or_default();
            block = &block[taken..];
            if unpacked.len() > LONGEST {
                return Err(Error::Long);
            }
            let is_stuck = taken == 0 && unpacked.len() == before.1 && unpacked.capacity() > unpacked.len();
            if status == Status::StreamEnd || is_stuck {
                return Err(Error::Packed);
            }
            unpacked.reserve(1024);
        }
        // What came in whole may still be held back for want of room.
        loop {
            let before = unpacked.len();
            let _ = self
                .stream
                .decompress_vec(&[], &mut unpacked, FlushDecompress::Sync);
            if unpacked.len() == before {
                break;
            }
            if unpacked.len() > LONGEST {
                return Err(Error::Long);
            }
            unpacked.reserve(1024);
        }
        parse(&unpacked)
    }
}

fn parse(mut rest: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let number = |rest: &mut &[u8]| {
        let (number, after) = rest.split_first_chunk::<4>().ok_or(Error::Shape)?;
        *rest = after;
        usize::try_from(u32::from_be_bytes(*number)).map_err(|_| Error::Shape)
    };
    let count = number(&mut rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let length = number(&mut rest)?;
            let (text, after) = rest.split_at_checked(length).ok_or(Error::Shape)?;
            rest = after;
            String::from_utf8(text.to_vec()).map_err(|_| Error::Shape)
        };
        pairs.push((text()?.to_ascii_lowercase(), text()?));
    }
    Ok(pairs)
}

/// A block without any header, for a connection's first reply or a later one. It is not compressed: what is sent
/// this way needs no state.
pub(crate) fn empty(is_first: bool) -> Vec<u8> {
    let mut block = Vec::new();
    if is_first {
        block.extend_from_slice(&[0x78, 0x01]);
    }
    // Four bytes as they are, and a mark that all of it has come.
    block.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
    block.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    block
}

/// The value of a header.
pub(crate) fn value<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// All of them, for a message about a stream that was not expected.
pub(crate) fn show(headers: &[(String, String)]) -> String {
    headers.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = write!(text, "{name}={value} ");
        text
    })
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    #[test]
    fn the_dictionary_is_the_protocol_s() {
        let dictionary = dictionary();
        let (low, high) = dictionary.iter().fold((1u32, 0u32), |(low, high), byte| {
            let low = (low + u32::from(*byte)) % 65521;
            (low, (high + low) % 65521)
        });
        assert_eq!(dictionary.len(), 1423);
        assert_eq!(high << 16 | low, 0xe3c6_a7c2);
    }

    /// A block as a client packs it, but for the dictionary, which this side's library cannot set.
    fn packed(stream: &mut Compress, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = u32::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 100);
        stream
            .compress_vec(&plain, &mut packed, FlushCompress::Sync)
            .unwrap();
        packed
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn blocks_build_on_those_before() {
        let (mut client, mut server) = (Compress::new(Compression::best(), true), Unpacker::new());
        let pairs = [("streamtype", "error"), ("port", "8080"), ("requestid", "0")];
        assert_eq!(server.read(&packed(&mut client, &pairs)), Ok(owned(&pairs)));
        let pairs = [("streamtype", "data"), ("port", "8080"), ("requestid", "0")];
        assert_eq!(server.read(&packed(&mut client, &pairs)), Ok(owned(&pairs)));
        let long = "x".repeat(20_000);
        assert_eq!(
            server.read(&packed(&mut client, &[("long", &long)])),
            Ok(owned(&[("long", &long)]))
        );
    }

    #[test]
    fn a_block_that_refers_to_the_dictionary_is_unpacked() {
        // As zlib packs `content-type: text/plain` with the dictionary set.
        let block = [
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x2c, 0x85, 0x09, 0x17, 0xc2, 0x15,
            0x00, 0x00, 0x00, 0x00, 0xff, 0xff,
        ];
        let mut server = Unpacker::new();
        assert_eq!(server.read(&block), Ok(owned(&[("content-type", "text/plain")])));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert_eq!(Unpacker::new().read(&[]), Err(Error::Packed));
        assert_eq!(
            Unpacker::new().read(&[0x78, 0x01, 0xff, 0xff]),
            Err(Error::Packed)
        );
        let mut block = vec![0x78, 0x01, 0, 4, 0, 0xfb, 0xff];
        block.extend_from_slice(&[0xff; 4]);
        assert_eq!(Unpacker::new().read(&block), Err(Error::Shape));
        let (mut client, huge) = (Compress::new(Compression::best(), true), "x".repeat(LONGEST));
        let block = packed(&mut client, &[("huge", &huge)]);
        assert_eq!(Unpacker::new().read(&block), Err(Error::Long));
    }

    #[test]
    fn our_own_blocks_can_be_read() {
        let mut server = Unpacker::new();
        assert_eq!(server.read(&empty(true)), Ok(Vec::new()));
        assert_eq!(server.read(&empty(false)), Ok(Vec::new()));
    }
}
