//! Validation rules (CEL) that several fields share, or that are too long for an attribute.
//!
//! The API server estimates what a rule costs from `maxLength` and `maxItems`, and refuses a definition that may cost too much:
//! every field that a rule reads has such a bound. Each rule says what to write instead.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

const GUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
/// Name of a namespace.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Name of a Secret, and of most other objects.
const DNS_SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Key of a label, with or without a domain before it.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// Five fields of a cron expression.
const FIVE_FIELDS: &str = "^[-0-9A-Za-z*?,/]+( +[-0-9A-Za-z*?,/]+){4}$";

fn rule(rule: impl Into<String>, message: impl AsRef<str>) -> Rule {
    Rule::new(rule).message(message.as_ref())
}

/// A GUID.
pub(super) fn guid(message: &str) -> Rule {
    rule(format!("self.matches('{GUID}')"), message)
}

/// The name of a Secret.
pub(super) fn secret_name(example: &str) -> Rule {
    rule(
        format!("self.matches('{DNS_SUBDOMAIN}')"),
        format!(
            "name must be the name of a Secret: lower-case letters, digits, '-' and '.', for example {example}; it begins and \
             ends with a letter or a digit"
        ),
    )
}

/// A key of a Secret.
pub(super) fn secret_key(example: &str) -> Rule {
    rule(
        "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",
        format!(
            "key must be a key of the Secret: letters, digits, '-', '_' and '.', not beginning with '..', for example {example}"
        ),
    )
}

/// The name of a tenant object.
pub(super) fn tenant_name() -> Rule {
    rule(
        format!("self.matches('{DNS_SUBDOMAIN}')"),
        "name must be the name of a tenant object: lower-case letters, digits, '-' and '.', for example contoso",
    )
}

/// A text without white space around it.
pub(super) fn trimmed(field: &str, example: &str) -> Rule {
    rule(
        "self == self.trim()",
        format!("{field} has white space around it; write the name only, for example {example}"),
    )
}

/// Ids of scope tags.
pub(super) fn scope_tags() -> Rule {
    rule(
        "self.all(id, id.matches('^(0|[1-9][0-9]{0,9})$'))",
        "roleScopeTagIds are the numbers of scope tags, as text, for example [\"0\", \"7\"]",
    )
}

/// Ids of tokens.
pub(super) fn guids_of_tokens() -> Rule {
    rule(
        format!("self.all(id, id.matches('{GUID}'))"),
        "distinctFrom lists GUIDs of vppTokens in Graph, for example 5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10",
    )
}

/// Ids of which none is there twice.
pub(super) fn unique_ids() -> Rule {
    rule(
        "self.all(id, self.exists_one(other, other.lowerAscii() == id.lowerAscii()))",
        "distinctFrom has an id twice (upper and lower case are the same); write each once",
    )
}

/// The token itself is not among those that it is distinct from.
pub(super) fn distinct_from_others() -> Rule {
    rule(
        "!has(self.tokenId) || !has(self.distinctFrom) || \
         !self.distinctFrom.exists(id, id.lowerAscii() == self.tokenId.lowerAscii())",
        "distinctFrom lists other tokens; leave out the one that tokenId names",
    )
}

/// Fields that have no effect under `Observe`; `given` says whether one is there.
pub(super) fn without_effect_under_observe(given: &str, because: &str, instead: &str) -> Rule {
    rule(
        format!("self.managementPolicy != 'Observe' || !({given})"),
        format!("managementPolicy: Observe only reads, so {because}: {instead}, or write managementPolicy: Manage"),
    )
}

/// Names of namespaces.
pub(super) fn namespace_names() -> Rule {
    rule(
        format!("self.all(name, name.matches('{DNS_LABEL}'))"),
        "names are those of namespaces: lower-case letters, digits and '-', for example devices",
    )
}

/// Five fields, of the signs that cron knows.
pub(super) fn five_fields() -> Rule {
    rule(
        format!("self.matches('{FIVE_FIELDS}')"),
        "schedule must be a cron expression of five fields (minute hour day-of-month month day-of-week), for example \
         \"0 6,18 * * *\"; a field has numbers, names such as MON, and the signs * ? , - /; fields for seconds or years and \
         names like @daily are not taken",
    )
}

/// One field of a cron expression.
struct CronField {
    name: &'static str,
    /// Its values, as a person reads them.
    values: &'static str,
    /// A value, as a pattern.
    value: &'static str,
    /// A step, as a pattern.
    step: &'static str,
}

const CRON_FIELDS: [CronField; 5] = [
    CronField {
        name: "the minute (first field)",
        values: "numbers from 0 to 59",
        value: "0*[1-5]?[0-9]",
        step: "0*([1-9]|[1-5][0-9])",
    },
    CronField {
        name: "the hour (second field)",
        values: "numbers from 0 to 23",
        value: "0*(1?[0-9]|2[0-3])",
        step: "0*([1-9]|1[0-9]|2[0-3])",
    },
    CronField {
        name: "the day of month (third field)",
        values: "numbers from 1 to 31",
        value: "0*([1-9]|[12][0-9]|3[01])",
        step: "0*([1-9]|[12][0-9]|3[01])",
    },
    CronField {
        name: "the month (fourth field)",
        values: "numbers from 1 to 12 or names from JAN to DEC",
        value: "(0*([1-9]|1[0-2])|(?i:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC))",
        step: "0*([1-9]|1[0-2])",
    },
    CronField {
        name: "the day of week (fifth field)",
        values: "numbers from 0 to 7 or names from SUN to SAT",
        value: "(0*[0-7]|(?i:SUN|MON|TUE|WED|THU|FRI|SAT))",
        step: "0*[1-7]",
    },
];

/// What the field with this number, from 0 to 4, is made of.
pub(super) fn cron_field(number: usize) -> Rule {
    let CronField { name, values, value, step } = &CRON_FIELDS[number];
    let part = format!("([*?]/{step}|{value}(-{value}(/{step})?)?)");
    rule(
        format!("!self.matches('{FIVE_FIELDS}') || self.matches('^([^ ]+ +){{{number}}}([*?]|{part}(,{part})*)( |$)')"),
        format!(
            "{name} of schedule has {values}: one, a range such as 1-5, or * for all; a range or * may have a step, such as \
             1-5/2 or */2, that is not 0 and not beyond the last number; several are separated by commas, for example \
             \"0 6,18 * * *\""
        ),
    )
}

/// No range of numbers or names that ends before it begins. A range of days may end with its Sunday.
pub(super) fn forward_ranges() -> Rule {
    let names = "'JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDECSUNMONTUEWEDTHUFRISAT'";
    rule(
        format!(
            "self.findAll('[0-9]{{1,9}}-[0-9]{{1,9}}').all(range, int(range.split('-')[0]) <= int(range.split('-')[1])) && \
             self.upperAscii().findAll('[A-Z]{{3}}-[A-Z]{{3}}').all(range, range.endsWith('-SUN') || \
             {names}.indexOf(range.substring(0, 3)) <= {names}.indexOf(range.substring(4)))"
        ),
        "a range of schedule ends before it begins; write two, separated by a comma, for example \"0 0-2,22-23 * * *\"",
    )
}

/// No minutes that are less than 15 apart, as far as the first field alone shows it: `*`, listed ones, a range.
pub(super) fn minutes_apart() -> Rule {
    let parts = "self.split(' ')[0].split(',')";
    let all = "self.matches('^[*?](/0*([1-9]|1[0-4]))? ')";
    // Of five different minutes two are too close. All pairs of a longer list would cost too much.
    let listed = format!(
        "(self.matches('^[0-9]{{1,2}}(,[0-9]{{1,2}})+ ') && [{parts}].exists(listed, \
         [0, 1, 2, 3].exists(i, [1, 2, 3, 4].exists(j, i < j && j < size(listed) && int(listed[i]) != int(listed[j]) && \
         int(listed[i]) - int(listed[j]) < 15 && int(listed[j]) - int(listed[i]) < 15))))"
    );
    let first = "int(part.split('-')[0])";
    let last = "int(part.split('-')[1].split('/')[0])";
    let step = "(part.contains('/') ? int(part.split('/')[1]) : 1)";
    let range = format!(
        "{parts}.exists(part, part.matches('^[0-9]{{1,2}}-[0-9]{{1,2}}(/[0-9]{{1,2}})?$') && {step} > 0 && {step} < 15 && \
         {last} - {first} >= {step})"
    );
    rule(
        format!("!self.matches('{FIVE_FIELDS}') || !({all} || {listed} || {range})"),
        "schedule fires more often than every 15 minutes; write for example \"*/15 * * * *\", or \"0 6 * * *\" for once a day",
    )
}

/// A selector on the labels of namespaces. Its type is Kubernetes' own, whose schema has no bounds and no rules.
pub(super) fn namespace_selector(_: &mut SchemaGenerator) -> Schema {
    let validations = |rules: &[Rule]| -> Value { json!(rules) };
    let key = rule(
        format!("self.matches('{LABEL_KEY}')"),
        "key must be the key of a label: letters, digits, '-', '_' and '.', optionally after a domain and '/', for example team \
         or contoso.example/team",
    );
    let labels = rule(
        format!("self.all(key, key.matches('{LABEL_KEY}') && self[key].matches('{LABEL_VALUE}'))"),
        "matchLabels are labels of namespaces: a key and a value of letters, digits, '-', '_' and '.', for example team: devices",
    );
    let label_values = rule(
        format!("self.all(value, value.matches('{LABEL_VALUE}'))"),
        "values are values of a label: letters, digits, '-', '_' and '.', for example [devices]",
    );
    let operator = rule(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "the operators In and NotIn need values, for example values: [devices]; Exists and DoesNotExist have none",
    );
    let not_empty = rule(
        "(has(self.matchLabels) && size(self.matchLabels) > 0) || \
         (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
        "selector is empty and would select every namespace: write matchLabels or matchExpressions, or from: All",
    );
    json_schema!({
        "type": "object",
        "x-kubernetes-validations": validations(&[not_empty]),
        "properties": {
            "matchLabels": {
                "description": "Labels that a namespace must have.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": { "type": "string", "maxLength": 63 },
                "x-kubernetes-validations": validations(&[labels]),
            },
            "matchExpressions": {
                "description": "Conditions on labels that a namespace must meet, all of them.",
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "x-kubernetes-validations": validations(&[operator]),
                    "properties": {
                        "key": {
                            "description": "Key of the label.",
                            "type": "string",
                            "maxLength": 317,
                            "x-kubernetes-validations": validations(&[key]),
                        },
                        "operator": {
                            "description": "`In` and `NotIn` (with `values`), `Exists` and `DoesNotExist` (without).",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values that the label may have (`In`) or may not have (`NotIn`).",
                            "type": "array",
                            "maxItems": 64,
                            "items": { "type": "string", "maxLength": 63 },
                            "x-kubernetes-validations": validations(&[label_values]),
                        },
                    },
                },
            },
        },
    })
}
