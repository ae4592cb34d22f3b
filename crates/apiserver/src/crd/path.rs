//! The JSONPath of definitions, as Kubernetes writes it: `.spec.replicas`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.metadata.labels.a\.io/b`.

use serde_json::Value;

/// A path, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// From the end when negative.
    Index(i64),
    /// From one index up to another, both from the end when negative.
    Slice(Option<i64>, Option<i64>),
    All,
    /// It, and all that is in it.
    Below,
    /// The items of which this holds.
    Where {
        path: Path,
        demand: Option<(Operator, Value)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Path {
    /// The path, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .unwrap_or(text);
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            let (step, tail) = step(rest)?;
            steps.extend(step);
            rest = tail;
        }
        Ok(Self(steps))
    }

    /// Where the path leads when it names fields only: `/spec/replicas`.
    pub(crate) fn pointer(&self) -> Option<String> {
        let fields = self.0.iter().map(|step| match step {
            Step::Field(name) => Some(format!("/{}", name.replace('~', "~0").replace('/', "~1"))),
            _ => None,
        });
        fields.collect()
    }

    /// The first value that the path leads to.
    pub(crate) fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.values(value).first().copied()
    }

    fn values<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.values(value)).collect();
        }
        found
    }
}

impl Step {
    fn values<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let from_end = || {
                    items
                        .len()
                        .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
                };
                let at = usize::try_from(*index).ok().or_else(from_end);
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::Slice(from, to) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = |index: Option<i64>, without: i64| {
                    let index = index.unwrap_or(without);
                    let index = if index < 0 { index + count } else { index };
                    usize::try_from(index.clamp(0, count)).unwrap_or_default()
                };
                let (from, to) = (at(*from, 0), at(*to, count));
                items.get(from..to).into_iter().flatten().collect()
            }
            Self::Below => {
                let mut found = vec![value];
                let mut next = 0;
                while let Some(value) = found.get(next).copied() {
                    found.extend(Self::All.values(value));
                    next += 1;
                }
                found
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, demand } => {
                let holds = |item: &&Value| match (path.first(item), demand) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(value), Some((operator, wanted))) => operator.holds(value, wanted),
                };
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
        }
    }
}

impl Operator {
    fn holds(self, value: &Value, wanted: &Value) -> bool {
        let order = match (value, wanted) {
            (Value::String(value), Value::String(wanted)) => Some(value.cmp(wanted)),
            _ => value
                .as_f64()
                .zip(wanted.as_f64())
                .and_then(|(value, wanted)| value.partial_cmp(&wanted)),
        };
        match self {
            Self::Equal => value == wanted || order.is_some_and(std::cmp::Ordering::is_eq),
            Self::NotEqual => value != wanted && order.is_none_or(std::cmp::Ordering::is_ne),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::More => order.is_some_and(std::cmp::Ordering::is_gt),
            Self::MoreOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

/// One step, and what comes after it.
fn step(text: &str) -> Result<(Option<Step>, &str), String> {
    if let Some(rest) = text.strip_prefix("..") {
        return match rest.chars().next() {
            Some('.') | None => Err(format!("unexpected '{text}'")),
            Some(_) => Ok((Some(Step::Below), rest)),
        };
    }
    if let Some(rest) = text.strip_prefix('[') {
        let end = closing(rest).ok_or("unterminated array")?;
        return Ok((Some(subscript(rest[..end].trim())?), &rest[end + 1..]));
    }
    let rest = text.strip_prefix('.').unwrap_or(text);
    let (mut name, mut is_escaped, mut end) = (String::new(), false, rest.len());
    for (at, letter) in rest.char_indices() {
        match letter {
            _ if is_escaped => {
                name.push(letter);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(letter),
        }
    }
    let step = match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    };
    if step.is_none() && end == 0 && !rest.starts_with('[') {
        return Err(format!("unexpected '{rest}'"));
    }
    Ok((step, &rest[end..]))
}

/// Where the bracket that was opened is closed.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if quote == Some(letter) => quote = None,
            _ if quote.is_some() => {}
            '\'' | '"' => quote = Some(letter),
            '[' => depth += 1,
            ']' if depth == 0 => return Some(at),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn subscript(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return filter(condition);
    }
    if let Ok(index) = text.parse() {
        return Ok(Step::Index(index));
    }
    if let Some((from, to)) = text.split_once(':') {
        let index = |text: &str| match text.trim() {
            "" => Ok(None),
            number => number.parse().map(Some),
        };
        if let (Ok(from), Ok(to)) = (index(from), index(to)) {
            return Ok(Step::Slice(from, to));
        }
    }
    match quoted(text) {
        Some(name) => Ok(Step::Field(name.to_owned())),
        None => Err(format!("invalid array index {text}")),
    }
}

fn quoted(text: &str) -> Option<&str> {
    let within = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    within('\'').or_else(|| within('"'))
}

fn filter(condition: &str) -> Result<Step, String> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::MoreOrEqual),
        ("<", Operator::Less),
        (">", Operator::More),
    ];
    let path = |text: &str| {
        let text = text
            .trim()
            .strip_prefix('@')
            .ok_or("a filter must begin with @")?;
        Path::parse(text)
    };
    for (sign, operator) in OPERATORS {
        if let Some((left, right)) = condition.split_once(sign) {
            let right = right.trim();
            let wanted = quoted(right)
                .map(Value::from)
                .or_else(|| serde_json::from_str(right).ok());
            let wanted = wanted.ok_or_else(|| format!("cannot compare with {right}"))?;
            let path = path(left)?;
            return Ok(Step::Where {
                path,
                demand: Some((operator, wanted)),
            });
        }
    }
    let path = path(condition)?;
    Ok(Step::Where { path, demand: None })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"labels": {"a.io/b": "c", "x-y": "z"}},
            "spec": {"replicas": 3, "list": ["a", "b"]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 1},
                {"type": "Failed", "status": "False", "n": 2},
            ]},
        });
        for (path, expected) in [
            (".spec.replicas", json!(3)),
            ("{.spec.replicas}", json!(3)),
            (".spec.list[0]", json!("a")),
            (".spec.list[-1]", json!("b")),
            (".spec.list[*]", json!("a")),
            (".spec.list[-1:]", json!("b")),
            (".spec.list[1:2]", json!("b")),
            ("..replicas", json!(3)),
            (".metadata.labels.a\\.io/b", json!("c")),
            (".metadata.labels['a.io/b']", json!("c")),
            (".metadata.labels.x-y", json!("z")),
            (".status.conditions[?(@.type==\"Failed\")].status", json!("False")),
            (".status.conditions[?(@.type == 'Ready')].status", json!("True")),
            (".status.conditions[?(@.n>1)].type", json!("Failed")),
            (".status.conditions[?(@.type!='Ready')].n", json!(2)),
        ] {
            assert_eq!(
                Path::parse(path).unwrap().first(&object),
                Some(&expected),
                "{path}"
            );
        }
        assert_eq!(Path::parse(".spec.gone.deep").unwrap().first(&object), None);
        assert_eq!(
            Path::parse(".spec.replicas").unwrap().pointer().as_deref(),
            Some("/spec/replicas")
        );
        assert_eq!(Path::parse(".spec.list[0]").unwrap().pointer(), None);
        for path in [
            ".spec.list[0",
            ".spec.list[x]",
            ".a[?(x)]",
            "..",
            ".a...b",
            ".spec.list[a:b]",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }
}
