//! Whether it is a Pod that listens at an address of this machine: what is not the Pod's is not forwarded.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// The loopback address at which a process below one of `keepers` listens on `port`.
pub(super) fn find(keepers: &[i32], port: u16) -> Option<IpAddr> {
    let listening: HashMap<u64, IpAddr> = [
        ("/proc/net/tcp", IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ("/proc/net/tcp6", IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ]
    .into_iter()
    .flat_map(|(path, loopback)| {
        let text = fs::read_to_string(path).unwrap_or_default();
        sockets(&text, port)
            .map(move |(inode, is_any_four)| {
                (
                    inode,
                    if is_any_four {
                        IpAddr::V4(Ipv4Addr::LOCALHOST)
                    } else {
                        loopback
                    },
                )
            })
            .collect::<Vec<_>>()
    })
    .collect();
    if listening.is_empty() {
        return None;
    }
    descendants(keepers).into_iter().find_map(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        open.flatten()
            .filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?))
            .find_map(|inode| listening.get(&inode).copied())
    })
}

/// The sockets that listen on a port of loopback or of every address: inode, and whether IPv4 reaches it although
/// the table is that of IPv6.
fn sockets(table: &str, port: u16) -> impl Iterator<Item = (u64, bool)> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let (address, own_port) = fields.nth(1)?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        if state != "0A" || u16::from_str_radix(own_port, 16).ok()? != port {
            return None;
        }
        let is_any = address.bytes().all(|digit| digit == b'0');
        let is_loopback = address == "0100007F" || address == "00000000000000000000000001000000";
        (is_any || is_loopback).then_some((inode, is_any))
    })
}

fn inode(link: &Path) -> Option<u64> {
    let text = link.to_str()?.strip_prefix("socket:[")?;
    text.strip_suffix(']')?.parse().ok()
}

/// Every process below these.
fn descendants(of: &[i32]) -> HashSet<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let (Some(pid), Some(parent)) = (pid, parent(&stat)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut todo) = (HashSet::new(), of.to_vec());
    while let Some(pid) = todo.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                todo.push(*child);
            }
        }
    }
    found
}

/// Field 4 of `/proc/<pid>/stat`; the name in field 2 may hold spaces and parentheses.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_what_listens_on_loopback_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
               1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
               2: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1\n\
               3: 0100007F:1F90 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 14 1\n\
               4: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15 1\n";
        let found: Vec<(u64, bool)> = sockets(table, 8080).collect();
        assert_eq!(found, [(11, false), (12, true)]);
    }

    #[test]
    fn a_listener_is_found_below_its_keeper_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let parent = parent(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(find(&[parent], port), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(find(&[me], port), None);
    }
}
