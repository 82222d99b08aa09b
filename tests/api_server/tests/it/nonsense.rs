//! Whatever is sent, the server answers, and keeps running.

use serde_json::{Map, Value, json};

use crate::world::*;

/// Numbers that look random and are always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }

    fn value(&mut self, depth: u64) -> Value {
        const NAMES: [&str; 24] = [
            "metadata",
            "spec",
            "status",
            "conditions",
            "type",
            "finalizers",
            "labels",
            "name",
            "ports",
            "tags",
            "data",
            "stringData",
            "free",
            "managedFields",
            "uid",
            "resourceVersion",
            "versions",
            "names",
            "kind",
            "apiVersion",
            "ownerReferences",
            "$patch",
            "deletionTimestamp",
            "nested",
        ];
        match self.roll(if depth == 0 { 5 } else { 10 }) {
            0 => Value::Null,
            1 => json!(self.roll(10)),
            2 => json!(true),
            3 | 4 => json!(self.pick(&["", "w", "devices", "Widget", "v1", "example.io/v1", "abc", "1", "a/b/c"])),
            5 => (0..self.roll(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let fields: Map<String, Value> =
                    (0..self.roll(5)).map(|_| (self.pick(&NAMES).to_owned(), self.value(depth - 1))).collect();
                Value::Object(fields)
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_answered() {
    let server = server();
    let mut dice = Dice(7);
    let paths = [
        WIDGETS,
        SECRETS,
        "/api/v1/namespaces",
        "/apis/events.k8s.io/v1/namespaces/devices/events",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    ];
    let kinds = [
        ("Widget", "example.io/v1"),
        ("Secret", "v1"),
        ("Namespace", "v1"),
        ("Event", "events.k8s.io/v1"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    ];
    let types = [
        "application/json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let n = usize::try_from(dice.roll(5)).unwrap();
        let mut body = dice.value(5);
        if dice.roll(8) > 0
            && let Value::Object(object) = &mut body
        {
            object.insert("kind".into(), kinds[n].0.into());
            object.insert("apiVersion".into(), kinds[n].1.into());
            if dice.roll(2) > 0 {
                object.insert("metadata".into(), json!({ "name": "w", "labels": dice.value(2) }));
            }
        }
        let (method, path) = match dice.roll(5) {
            0 => ("POST", paths[n].to_owned()),
            1 => ("PUT", format!("{}/w", paths[n])),
            2 | 3 => ("PATCH", format!("{}/w{}", paths[n], dice.pick(&["", "", "/status"]))),
            _ => (dice.pick(&["DELETE", "GET"]), format!("{}{}", paths[n], dice.pick(&["", "/w", "/devices"]))),
        };
        let query = dice.pick(&[
            "fieldManager=a&force=true",
            "fieldManager=b",
            "watch=1&timeoutSeconds=18446744073709551615",
            "limit=1&continue=:",
            "labelSelector=a+in+(b,c",
            "resourceVersion=%zz",
            "",
        ]);
        let content_type = if method == "PATCH" { dice.pick(&types) } else { "application/json" };
        codes.insert(ask(&server, method, &format!("{path}?{query}"), content_type, &body).status().as_u16());
    }
    for code in [200, 201, 400, 404, 409, 415, 422, 500] {
        assert!(codes.contains(&code), "{code} of {codes:?}");
    }
}
