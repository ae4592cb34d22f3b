//! CEL rules of schemas (`x-kubernetes-validations`): compiled with the schema, run on every write.
//! The language and the functions that Kubernetes adds to it come from `kube-cel`.
//!
//! A rule must not hold the server up. Its language has no loops but those over what is there, so
//! how long it takes is bounded by how deep they are nested and by how much is there: that bound is
//! worked out before the rule is run.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube_cel::{
    KubeCelExt as _,
    cel::{
        Context, ExecutionError, Program, Value as Cel,
        common::ast::{EntryExpr, Expr, IdedExpr},
        objects::{Key, Map, OptionalValue},
    },
};
use serde_json::Value;

use super::{
    check::NOWHERE,
    format,
    schema::{Schema, Type},
};
use crate::validation::Problems;

/// Steps that one rule may take on one value.
const RULE_BUDGET: u64 = 10_000_000;
/// Steps that all rules may take on one object.
const OBJECT_BUDGET: u64 = 20_000_000;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    text: String,
    program: Program,
    cost: Cost,
    /// Whether it compares with what was there before.
    is_transition: bool,
    /// Whether it runs with nothing to compare with, too.
    takes_absence: bool,
    message: String,
    message_program: Option<Program>,
    reason: String,
    /// Where its problems are, below its value.
    field: String,
}

impl Rule {
    /// The rule as written in the schema, or what is wrong with it.
    pub(super) fn parse(document: &Value) -> Result<Self, String> {
        let text = |field: &str| {
            document
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .trim()
        };
        let rule = text("rule");
        if rule.is_empty() {
            return Err("rule is not specified".to_owned());
        }
        let program = compile(rule)?;
        let message_program = match text("messageExpression") {
            "" => None,
            expression => Some(compile(expression)?),
        };
        let is_transition = program.references().has_variable("oldSelf");
        Ok(Self {
            cost: Cost::of(program.expression()),
            text: rule.to_owned(),
            program,
            is_transition,
            takes_absence: document.get("optionalOldSelf") == Some(&Value::Bool(true)),
            message: text("message").to_owned(),
            message_program,
            reason: text("reason").to_owned(),
            field: text("fieldPath").to_owned(),
        })
    }

    /// Whether it compares with what was there before.
    pub(super) const fn is_transition(&self) -> bool {
        self.is_transition
    }

    /// What messages call it.
    fn name(&self) -> &str {
        if self.message.is_empty() {
            &self.text
        } else {
            &self.message
        }
    }

    fn report(&self, kind: &str, path: &str, scope: &Context<'_>, problems: &mut Problems) {
        let at = at(&format!("{path}{}", self.field));
        let expressed = self
            .message_program
            .as_ref()
            .and_then(|program| program.execute(scope).ok());
        let message = match expressed {
            Some(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => {
                text.trim().to_owned()
            }
            _ if self.message.is_empty() => format!("failed rule: {}", self.text),
            _ => self.message.clone(),
        };
        match self.reason.as_str() {
            "FieldValueForbidden" => problems.forbidden(at, &message),
            "FieldValueRequired" => problems.required(at, &message),
            "FieldValueDuplicate" => problems.duplicate(at, kind),
            _ => problems.invalid(at, kind, &message),
        }
    }
}

fn compile(text: &str) -> Result<Program, String> {
    // The parser of the library gives up on the stack where nesting has no end.
    if text.len() > 16 * 1024 || text.chars().filter(|c| matches!(c, '(' | '[' | '{')).count() > 500 {
        return Err("compilation failed: the expression is too long".to_owned());
    }
    let program = Program::compile(text).map_err(|error| format!("compilation failed: {error}"))?;
    if program.references().has_function("lists.range") || text.contains("lists.range") {
        return Err("compilation failed: undeclared reference to 'lists.range'".to_owned());
    }
    Ok(program)
}

fn at(path: &str) -> String {
    let path = path.trim_start_matches('.');
    if path.is_empty() {
        NOWHERE.to_owned()
    } else {
        path.to_owned()
    }
}

/// How much work an expression is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    /// How many parts it has.
    parts: u64,
    /// How deep its loops are nested.
    depth: u32,
    /// Whether it makes lists of texts.
    splits: bool,
}

impl Cost {
    fn of(expression: &IdedExpr) -> Self {
        let mut cost = Self::default();
        cost.add(expression, 0);
        cost
    }

    fn add(&mut self, expression: &IdedExpr, depth: u32) {
        self.parts += 1;
        self.depth = self.depth.max(depth);
        match &expression.expr {
            Expr::Call(call) => {
                self.splits |= matches!(call.func_name.as_str(), "split" | "findAll" | "format");
                call.target.iter().for_each(|target| self.add(target, depth));
                call.args.iter().for_each(|argument| self.add(argument, depth));
            }
            Expr::Comprehension(of) => {
                self.add(&of.iter_range, depth);
                self.add(&of.accu_init, depth);
                for looped in [&of.loop_cond, &of.loop_step, &of.result] {
                    self.add(looped, depth + 1);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.add(element, depth)),
            Expr::Map(map) => map
                .entries
                .iter()
                .for_each(|entry| self.add_entry(&entry.expr, depth)),
            Expr::Struct(of) => of
                .entries
                .iter()
                .for_each(|entry| self.add_entry(&entry.expr, depth)),
            Expr::Select(select) => self.add(&select.operand, depth),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn add_entry(&mut self, entry: &EntryExpr, depth: u32) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.add(&entry.key, depth);
                self.add(&entry.value, depth);
            }
            EntryExpr::StructField(field) => self.add(&field.value, depth),
        }
    }

    /// The most steps that it takes on the value.
    fn on(self, value: &Value) -> u64 {
        // A list written in the expression may be longer than any in the value.
        let widest = widest(value, self.splits).max(self.parts).max(1);
        let rounds = if self.depth == 0 {
            1
        } else {
            widest.saturating_pow(self.depth)
        };
        rounds.saturating_mul(self.parts)
    }
}

/// How long the longest list or map in the value is, and the longest text where texts are split.
fn widest(value: &Value, with_texts: bool) -> u64 {
    let of = |values: &mut dyn Iterator<Item = &Value>| {
        values
            .map(|value| widest(value, with_texts))
            .max()
            .unwrap_or_default()
    };
    match value {
        Value::Array(items) => (items.len() as u64).max(of(&mut items.iter())),
        Value::Object(fields) => (fields.len() as u64).max(of(&mut fields.values())),
        Value::String(text) if with_texts => text.len() as u64,
        _ => 0,
    }
}

/// What is wrong with the object by the rules of its schema. `old` is what it was before.
pub(super) fn check(schema: &Schema, object: &Value, old: Option<&Value>, problems: &mut Problems) {
    if !schema.has_rules() {
        return;
    }
    let mut run = Run {
        base: language(),
        budget: OBJECT_BUDGET,
        problems,
    };
    // Whether all rules were run makes no difference: that one was not is among the problems.
    let _ = run.walk(schema, object, old, "", true);
}

/// The language with the functions of Kubernetes.
fn language() -> Context<'static> {
    let mut language = Context::default().with_all();
    // The library has no types as values: here they are their names.
    for name in TYPES {
        language.add_variable_from_value(name, Cel::String(Arc::new(name.to_owned())));
    }
    language.add_function("type", |value: Cel| type_name(&value).to_owned());
    language
}

const TYPES: [&str; 9] = [
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "list",
    "map",
    "null_type",
];

const fn type_name(value: &Cel) -> &'static str {
    match value {
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::Bool(_) => "bool",
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Null => "null_type",
        _ => "dyn",
    }
}

/// The budget is used up: nothing more is run.
struct Exhausted;

/// The rules on one object.
struct Run<'a> {
    base: Context<'static>,
    budget: u64,
    problems: &'a mut Problems,
}

impl Run<'_> {
    fn walk(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        is_resource: bool,
    ) -> Result<(), Exhausted> {
        if !schema.has_rules() {
            return Ok(());
        }
        if !schema.rules.is_empty() {
            self.rules(schema, value, old, path, is_resource)?;
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let Some(below) = schema.field(name) else {
                        continue;
                    };
                    let path = if schema.has_property(name) {
                        format!("{path}.{name}")
                    } else {
                        format!("{path}[{name}]")
                    };
                    let old = old.and_then(|old| old.get(name));
                    self.walk(below, value, old, &path, below.is_embedded)?;
                }
            }
            Value::Array(items) => {
                let Some(below) = schema.items() else {
                    return Ok(());
                };
                for (index, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| schema.counterpart(item, old));
                    self.walk(below, item, old, &format!("{path}[{index}]"), below.is_embedded)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        is_resource: bool,
    ) -> Result<(), Exhausted> {
        let kind = schema.kind.map_or("", Type::name);
        let mut scope = self.base.new_inner_scope();
        scope.add_variable_from_value("self", cel(Some(schema), value, is_resource));
        let before = old.map(|old| cel(Some(schema), old, is_resource));
        for rule in &schema.rules {
            if rule.is_transition && before.is_none() && !rule.takes_absence {
                continue;
            }
            // What was there before the rule may stay as it is.
            if !rule.is_transition && old == Some(value) {
                continue;
            }
            let mut scope = scope.new_inner_scope();
            match (&before, rule.takes_absence) {
                (Some(before), false) => scope.add_variable_from_value("oldSelf", before.clone()),
                (before, true) => {
                    let before = before.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                    scope.add_variable_from_value("oldSelf", Cel::Opaque(Arc::new(before)));
                }
                (None, false) => {}
            }
            let cost = rule.cost.on(value).max(old.map_or(0, |old| rule.cost.on(old)));
            if cost > RULE_BUDGET || cost > self.budget {
                let detail = format!(
                    "'operation cancelled: actual cost limit exceeded': no further validation rules will be run \
                     due to call cost exceeds limit for rule: {}",
                    rule.name()
                );
                self.problems.invalid(at(path), kind, &detail);
                return Err(Exhausted);
            }
            self.budget -= cost;
            match rule.program.execute(&scope) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => rule.report(kind, path, &scope, self.problems),
                Ok(_) => {
                    let detail = format!(
                        "cel expression must evaluate to a bool evaluating rule: {}",
                        rule.name()
                    );
                    self.problems.invalid(at(path), kind, &detail);
                }
                Err(error) => {
                    let detail = format!("{} evaluating rule: {}", said(&error), rule.name());
                    self.problems.invalid(at(path), kind, &detail);
                }
            }
        }
        Ok(())
    }
}

/// The error as CEL's other implementations say it.
fn said(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        other => {
            let text = other.to_string();
            let mut letters = text.chars();
            let first = letters.next().into_iter().flat_map(char::to_lowercase);
            first.chain(letters).collect()
        }
    }
}

/// A value as rules see it.
fn cel(schema: Option<&Schema>, value: &Value, is_resource: bool) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => {
            let is_integer = schema.is_none_or(|schema| schema.kind != Some(Type::Number));
            let float = number.as_f64().unwrap_or(f64::NAN);
            match number.as_i64() {
                Some(integer) if is_integer => Cel::Int(integer),
                _ if is_integer && float.fract() == 0.0 && float.abs() < 9.2e18 => Cel::Int(float as i64),
                _ => Cel::Float(float),
            }
        }
        Value::String(text) => {
            let format = schema.and_then(|schema| schema.limits.format.as_deref());
            formatted(format.unwrap_or_default(), text)
        }
        Value::Array(items) => {
            let below = schema.and_then(Schema::items);
            let is_resource = below.is_some_and(|below| below.is_embedded);
            let items = items.iter().map(|item| cel(below, item, is_resource));
            Cel::List(Arc::new(items.collect()))
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                let below = schema.and_then(|schema| schema.field(name));
                let has_own = schema.is_some_and(|schema| schema.has_property(name));
                let is_own = is_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
                let value = if is_own && name == "metadata" {
                    names_of(value)
                } else {
                    cel(below, value, below.is_some_and(|below| below.is_embedded))
                };
                let name = if has_own { escaped(name) } else { name.clone() };
                (Key::String(Arc::new(name)), value)
            });
            Cel::Map(Map {
                map: Arc::new(fields.collect()),
            })
        }
    }
}

/// Of the metadata, rules see names only.
fn names_of(metadata: &Value) -> Cel {
    let names = ["name", "generateName"].into_iter().filter_map(|field| {
        let name = metadata.get(field)?.as_str()?;
        Some((
            Key::String(Arc::new(field.to_owned())),
            Cel::String(Arc::new(name.to_owned())),
        ))
    });
    Cel::Map(Map {
        map: Arc::new(names.collect::<HashMap<_, _>>()),
    })
}

fn formatted(format: &str, text: &str) -> Cel {
    let formatted = match format {
        "date-time" => chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .map(Cel::Timestamp),
        "duration" => format::duration(text)
            .map(|nanoseconds| Cel::Duration(chrono::Duration::nanoseconds(nanoseconds))),
        "byte" => BASE64_STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Cel::Bytes(Arc::new(bytes))),
        _ => None,
    };
    formatted.unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())))
}

/// Names that mean something else in CEL.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field as rules write it.
fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: Value, new: Value, old: Option<Value>) -> String {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": spec}}));
        let mut problems = Problems::default();
        let old = old.map(|spec| json!({"spec": spec}));
        check(&schema, &json!({"spec": new}), old.as_ref(), &mut problems);
        problems.to_string()
    }

    fn spec(rule: Value) -> Value {
        json!({
            "type": "object",
            "x-kubernetes-validations": [rule],
            "properties": {
                "min": {"type": "integer"},
                "max": {"type": "integer"},
                "share": {"type": "number"},
                "at": {"type": "string", "format": "date-time"},
                "wait": {"type": "string", "format": "duration"},
                "memory": {"x-kubernetes-int-or-string": true},
                "names": {"type": "array", "items": {"type": "string"}},
                "max-size": {"type": "integer"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        })
    }

    #[test]
    fn rules_see_values_with_their_types() {
        for (rule, value) in [
            ("self.min <= self.max", json!({"min": 1, "max": 2})),
            ("!has(self.min) || self.min > 0", json!({})),
            ("self.share > 0.5", json!({"share": 1})),
            (
                "self.at < timestamp('2027-01-01T00:00:00Z')",
                json!({"at": "2026-11-22T10:00:00Z"}),
            ),
            ("self.wait <= duration('1h')", json!({"wait": "90s"})),
            (
                "quantity(self.memory).isLessThan(quantity('1Gi'))",
                json!({"memory": "512Mi"}),
            ),
            (
                "type(self.memory) == int ? self.memory > 0 : true",
                json!({"memory": 5}),
            ),
            (
                "self.names.all(n, n.matches('^[a-z]+$')) && self.names.exists(n, n == 'b')",
                json!({"names": ["a", "b"]}),
            ),
            (
                "self.names.isSorted() && size(self.names) == 2",
                json!({"names": ["a", "b"]}),
            ),
            ("self.max__dash__size == 3", json!({"max-size": 3})),
            ("self.labels['a.io/b'] == 'c'", json!({"labels": {"a.io/b": "c"}})),
            (
                "'a-b-c'.split('-').size() == 3 && 'x1y'.find('[0-9]') == '1'",
                json!({}),
            ),
            (
                "isURL('https://a.io:80/b') && url('https://a.io:80/b').getPort() == '80'",
                json!({}),
            ),
            (
                "isIP('10.0.0.1') && cidr('10.0.0.0/8').containsIP('10.0.0.1')",
                json!({}),
            ),
        ] {
            assert_eq!(found(spec(json!({"rule": rule})), value, None), "[]", "{rule}");
        }
    }

    #[test]
    fn a_broken_rule_is_reported_as_its_author_said() {
        let value = json!({"min": 3, "max": 2});
        for (rule, expected) in [
            (
                json!({"rule": "self.min <= self.max"}),
                r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#,
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "min is over max"}),
                r#"spec: Invalid value: "object": min is over max"#,
            ),
            (
                json!({"rule": "self.min <= self.max", "messageExpression": "'min is over ' + string(self.max)"}),
                r#"spec: Invalid value: "object": min is over 2"#,
            ),
            (
                json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueForbidden", "fieldPath": ".min"}),
                "spec.min: Forbidden: m",
            ),
            (
                json!({"rule": "self.share > 0.5"}),
                r#"spec: Invalid value: "object": no such key: share evaluating rule: self.share > 0.5"#,
            ),
        ] {
            assert_eq!(found(spec(rule), value.clone(), None), expected);
        }
    }

    #[test]
    fn transition_rules_compare_with_what_was_there() {
        let grows = json!({"rule": "self.min >= oldSelf.min", "message": "min only grows"});
        let broken = r#"spec: Invalid value: "object": min only grows"#;
        for (new, old, expected) in [(1, None, "[]"), (2, Some(1), "[]"), (1, Some(2), broken)] {
            let old = old.map(|old| json!({"min": old}));
            assert_eq!(found(spec(grows.clone()), json!({"min": new}), old), expected);
        }
        let always = json!({
            "rule": "oldSelf.hasValue() || self.min == 1",
            "optionalOldSelf": true,
            "message": "min begins at 1",
        });
        assert_eq!(found(spec(always.clone()), json!({"min": 1}), None), "[]");
        assert!(found(spec(always.clone()), json!({"min": 2}), None).contains("begins at 1"));
        assert_eq!(
            found(spec(always), json!({"min": 3}), Some(json!({"min": 1}))),
            "[]"
        );
    }

    #[test]
    fn items_of_maps_are_compared_by_their_key() {
        let schema = json!({"type": "object", "properties": {"steps": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {
                "type": "string",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "image is immutable"}],
            }}},
        }}});
        let step = |name: &str, image: &str| json!({"name": name, "image": image});
        let old = json!({"steps": [step("a", "1"), step("b", "2")]});
        let moved = json!({"steps": [step("b", "2"), step("a", "1"), step("c", "3")]});
        assert_eq!(found(schema.clone(), moved, Some(old.clone())), "[]");
        let changed = json!({"steps": [step("b", "3")]});
        assert_eq!(
            found(schema, changed, Some(old)),
            r#"spec.steps[0].image: Invalid value: "string": image is immutable"#
        );
    }

    #[test]
    fn what_was_there_before_a_rule_may_stay() {
        let rule = spec(json!({"rule": "self.min <= self.max"}));
        let value = json!({"min": 3, "max": 2});
        assert_eq!(found(rule.clone(), value.clone(), Some(value)), "[]");
        assert_ne!(
            found(
                rule,
                json!({"min": 4, "max": 2}),
                Some(json!({"min": 3, "max": 2}))
            ),
            "[]"
        );
    }

    #[test]
    fn a_rule_that_would_take_too_long_is_not_run() {
        let cubic = spec(json!({
            "rule": "self.names.all(a, self.names.all(b, self.names.all(c, a + b != c)))",
        }));
        let names = |count: usize| json!({"names": (0..count).map(|n| n.to_string()).collect::<Vec<_>>()});
        assert!(!found(cubic.clone(), names(5), None).contains("cost"));
        let refused = found(cubic, names(2000), None);
        assert!(refused.contains("call cost exceeds limit for rule"), "{refused}");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rule in ["", "self.", "self.a ==", "lists.range(1000000000).size() > 0"] {
            assert!(Rule::parse(&json!({"rule": rule})).is_err(), "{rule}");
        }
    }

    #[test]
    fn names_are_escaped_as_kubernetes_escapes_them() {
        for (name, expected) in [
            ("namespace", "__namespace__"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("a_b", "a_b"),
            ("a__b", "a__underscores__b"),
        ] {
            assert_eq!(escaped(name), expected);
        }
    }
}
