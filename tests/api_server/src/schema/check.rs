//! Validation of a value against a schema.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ListType, Path, Schema, Type};
use crate::failure::FieldError;
use crate::fields::typed;

/// Adds what is wrong with a value to a list.
pub(crate) fn check(schema: &Schema, value: &Value, path: Path, errors: &mut Vec<FieldError>) {
    if value.is_null() && (schema.nullable || schema.kind == Type::Any) {
        return;
    }
    if !has_type(schema.kind, value) {
        let message = format!("{}: must be of type {}", shown(value), name(schema.kind));
        errors.push(FieldError { reason: "FieldValueTypeInvalid", ..FieldError::invalid(path.text(), message) });
        return;
    }
    check_value(schema, value, path, errors);
    check_junctors(schema, value, path, errors);
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let Some((field, _)) = schema.field(name)
                    && !(schema.is_embedded && name == "metadata")
                {
                    check(field, value, Path::Field(&path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(element) = &schema.items {
                for (n, item) in items.iter().enumerate() {
                    check(element, item, Path::Index(&path, n), errors);
                }
            }
            if schema.list != ListType::Atomic {
                check_duplicates(schema, items, path, errors);
            }
        }
        _ => {}
    }
}

fn check_value(schema: &Schema, value: &Value, path: Path, errors: &mut Vec<FieldError>) {
    let rules = &schema.rules;
    if !rules.enumeration.is_empty() && !rules.enumeration.contains(value) {
        let supported: Vec<String> = rules.enumeration.iter().map(Value::to_string).collect();
        errors.push(FieldError {
            path: path.text(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {}", supported.join(", ")),
        });
    }
    match value {
        Value::String(text) => {
            let (length, before) = (text.chars().count() as u64, errors.len());
            bounds(length, rules.length, "chars long", "TooLong", path, errors);
            // A text that is too short or too long is not looked at further.
            if let Some(pattern) = &rules.pattern
                && errors.len() == before
                && !pattern.is_match(text)
            {
                let message = format!("{value}: {path} in body should match '{}'", pattern.as_str());
                errors.push(FieldError::invalid(path.text(), message));
            }
            if let Some(format) = &rules.format
                && !has_format(format, text)
            {
                let message = format!("{value}: {path} in body must be of type {format}: {value}");
                errors.push(FieldError::invalid(path.text(), message));
            }
        }
        Value::Number(_) => check_number(schema, value, path, errors),
        Value::Array(items) => {
            bounds(items.len() as u64, rules.items, "items", "TooMany", path, errors);
            if rules.unique_items && items.iter().enumerate().any(|(n, item)| items[..n].contains(item)) {
                let message = format!("{}: {path} in body shouldn't contain duplicates", shown(value));
                errors.push(FieldError::invalid(path.text(), message));
            }
        }
        Value::Object(object) => {
            bounds(object.len() as u64, rules.properties, "properties", "TooMany", path, errors);
            for required in rules.required.iter().filter(|name| !object.contains_key(*name)) {
                errors.push(FieldError::required(Path::Field(&path, required).to_string(), ""));
            }
        }
        _ => {}
    }
}

fn check_number(schema: &Schema, value: &Value, path: Path, errors: &mut Vec<FieldError>) {
    let (rules, number) = (&schema.rules, value.as_f64().unwrap_or_default());
    let mut wrong = |message: String| {
        errors.push(FieldError::invalid(path.text(), format!("{value}: {path} in body should be {message}")));
    };
    if let Some((minimum, exclusive)) = rules.minimum
        && (number < minimum || (exclusive && number == minimum))
    {
        wrong(format!("greater than{} {minimum}", if exclusive { "" } else { " or equal to" }));
    }
    if let Some((maximum, exclusive)) = rules.maximum
        && (number > maximum || (exclusive && number == maximum))
    {
        wrong(format!("less than{} {maximum}", if exclusive { "" } else { " or equal to" }));
    }
    if let Some(factor) = rules.multiple_of
        && factor > 0.0
        && (number / factor).fract() != 0.0
    {
        wrong(format!("a multiple of {factor}"));
    }
    if rules.format.as_deref() == Some("int32") && value.as_i64().is_none_or(|number| i32::try_from(number).is_err()) {
        wrong("of type int32".into());
    }
}

fn check_junctors(schema: &Schema, value: &Value, path: Path, errors: &mut Vec<FieldError>) {
    let rules = &schema.rules;
    let fits = |schema: &Schema| {
        let mut errors = Vec::new();
        check(schema, value, path, &mut errors);
        errors.is_empty()
    };
    for all in &rules.all_of {
        check(all, value, path, errors);
    }
    let mut wrong =
        |message: &str| errors.push(FieldError::invalid(path.text(), format!("{}: {message}", shown(value))));
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(fits) {
        wrong("must validate at least one schema (anyOf)");
    }
    if !rules.one_of.is_empty() && rules.one_of.iter().filter(|one| fits(one)).count() != 1 {
        wrong("must validate one and only one schema (oneOf)");
    }
    if rules.not.as_ref().is_some_and(|not| fits(not)) {
        wrong("must not validate the schema (not)");
    }
}

/// Elements of a set, and keys of a map, are unique.
fn check_duplicates(schema: &Schema, items: &[Value], path: Path, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (n, item) in items.iter().enumerate() {
        let Some(element) = typed::element_of(schema, item) else { continue };
        if !seen.insert(element) {
            let path = Path::Index(&path, n).to_string();
            let message = format!("Duplicate value: {}", shown(item));
            errors.push(FieldError { path, reason: "FieldValueDuplicate", message });
        }
    }
}

/// Not fewer, and not more.
fn bounds(
    count: u64,
    (least, most): (Option<u64>, Option<u64>),
    what: &str,
    reason: &str,
    path: Path,
    errors: &mut Vec<FieldError>,
) {
    if let Some(least) = least.filter(|least| count < *least) {
        let message = format!("{path} in body should be at least {least} {what}");
        errors.push(FieldError::invalid(path.text(), message));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        let (reason, message) = if reason == "TooLong" {
            ("FieldValueTooLong", format!("Too long: may not be more than {most} bytes"))
        } else {
            ("FieldValueTooMany", format!("Too many: {count}: must have at most {most} {what}"))
        };
        errors.push(FieldError { path: path.text(), reason, message });
    }
}

/// Whether a value is of a type.
pub(crate) fn has_type(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || value.is_i64() || value.is_u64(),
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => serde_json::from_value::<k8s_openapi::ByteString>(text.into()).is_ok(),
        _ => true,
    }
}

fn name(kind: Type) -> &'static str {
    match kind {
        Type::Any => "any",
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer or string",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "object".into(),
        Value::Array(_) => "array".into(),
        other => other.to_string(),
    }
}
