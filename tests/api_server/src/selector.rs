//! Label and field selectors.

use serde_json::Value;

use crate::failure::Failure;

/// Which objects of a list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads both selectors.
    ///
    /// # Errors
    /// 400 when one can't be read, or asks for a field that can't be selected by.
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, Failure> {
        let labels = terms(labels.unwrap_or_default()).into_iter().map(|term| {
            label(term).ok_or_else(|| Failure::bad_request(format!("unable to parse requirement: {term}")))
        });
        let fields = terms(fields.unwrap_or_default()).into_iter().map(|term| {
            let unreadable = || Failure::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'"));
            let field = equality(term).ok_or_else(unreadable)?;
            if matches!(field.key.as_str(), "metadata.name" | "metadata.namespace") {
                Ok(field)
            } else {
                Err(Failure::bad_request(format!("field label not supported: {}", field.key)))
            }
        });
        Ok(Self { labels: labels.collect::<Result<_, _>>()?, fields: fields.collect::<Result<_, _>>()? })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |requirement: &Requirement| {
            requirement.test.holds(metadata["labels"].get(&requirement.key).and_then(Value::as_str))
        };
        let field = |requirement: &Requirement| {
            let name = requirement.key.trim_start_matches("metadata.");
            requirement.test.holds(Some(metadata[name].as_str().unwrap_or_default()))
        };
        self.labels.iter().all(label) && self.fields.iter().all(field)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_in = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match self {
            Self::In(values) => is_in(values),
            Self::NotIn(values) => !is_in(values),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

/// The parts between commas that are not inside parentheses.
fn terms(selector: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = selector.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn equality(term: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim().to_owned();
        (!key.is_empty()).then_some(Requirement { key, test })
    };
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
    requirement(key, Test::In(vec![value.trim().to_owned()]))
}

fn label(term: &str) -> Option<Requirement> {
    if term.contains('=') {
        return equality(term);
    }
    if let Some((head, values)) = term.split_once('(') {
        let values = values.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim().split_once(char::is_whitespace)?;
        let test = match operator.trim() {
            "in" => Test::In(values),
            "notin" => Test::NotIn(values),
            _ => return None,
        };
        return Some(Requirement { key: key.to_owned(), test });
    }
    let (key, test) = term.strip_prefix('!').map_or((term, Test::Exists), |key| (key.trim(), Test::Absent));
    (!key.is_empty() && !key.contains(char::is_whitespace)).then(|| Requirement { key: key.to_owned(), test })
}
