//! GET and LIST: selection, pages, versions, metadata only.

use api_server::ApiServer;
use serde_json::{Value, json};

use crate::world::*;

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn five() -> ApiServer {
    let server = server();
    for name in ["a", "b", "c", "d", "e"] {
        let mut body = widget(name, json!({}));
        body["metadata"]["labels"] = json!({ "name": name, "vowel": matches!(name, "a" | "e").to_string() });
        post(&server, WIDGETS, &body);
    }
    server
}

#[test]
fn lists_are_selected_by_labels_and_fields() {
    let server = five();
    let cases = [
        ("labelSelector=vowel%3Dtrue", "ae"),
        ("labelSelector=vowel!=true", "bcd"),
        ("labelSelector=name+in+(a,b)", "ab"),
        ("labelSelector=name+notin+(a,b),vowel", "cde"),
        ("labelSelector=!vowel", ""),
        ("fieldSelector=metadata.name%3Dc", "c"),
        ("fieldSelector=metadata.name!=c,metadata.namespace=devices", "abde"),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&get(&server, &format!("{WIDGETS}?{query}")).1).concat(), expected, "{query}");
    }
    assert_eq!(get(&server, &format!("{WIDGETS}?fieldSelector=spec.size=3")).0, 400);
    assert_eq!(names(&get(&server, "/apis/example.io/v1/widgets").1).len(), 5);
    assert_eq!(names(&get(&server, &WIDGETS.replace("devices", "default")).1).len(), 0);
}

#[test]
fn pages_show_one_state_until_it_is_forgotten() {
    let server = five();
    let (_, first) = get(&server, &format!("{WIDGETS}?limit=2"));
    assert_eq!((names(&first).concat(), &first["metadata"]["remainingItemCount"]), ("ab".into(), &json!(3)));
    delete(&server, &format!("{WIDGETS}/c"), &Value::Null);
    post(&server, WIDGETS, &widget("bb", json!({})));
    let next = |list: &Value| format!("{WIDGETS}?limit=2&continue={}", list["metadata"]["continue"].as_str().unwrap());
    let (_, second) = get(&server, &next(&first));
    assert_eq!(names(&second).concat(), "cd");
    assert_eq!(version(&second), version(&first));
    let (_, third) = get(&server, &next(&second));
    assert_eq!((names(&third).concat(), &third["metadata"]["continue"]), ("e".into(), &json!("")));
    server.compact();
    let (code, status) = get(&server, &next(&first));
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let (code, rest) = get(&server, &next(&status));
    assert_eq!((code, names(&rest).concat()), (200, "bbd".into()), "what is there now, after b");
    assert_eq!(get(&server, &format!("{WIDGETS}?continue=nonsense")).0, 400);
}

#[test]
fn versions_ask_for_how_old_a_read_may_be() {
    let server = five();
    let then = server.revision();
    delete(&server, &format!("{WIDGETS}/a"), &Value::Null);
    let list = |query: &str| get(&server, &format!("{WIDGETS}?{query}"));
    assert_eq!(names(&list(&format!("resourceVersion={then}&resourceVersionMatch=Exact")).1).len(), 5);
    assert_eq!(names(&list(&format!("resourceVersion={then}&limit=9")).1).len(), 5);
    assert_eq!(names(&list(&format!("resourceVersion={then}")).1).len(), 4);
    assert_eq!(names(&list("resourceVersion=0&resourceVersionMatch=NotOlderThan").1).len(), 4);
    assert_eq!(list("resourceVersionMatch=Exact").0, 422);
    assert_eq!(list("resourceVersion=0&resourceVersionMatch=Exact").0, 422);
    assert_eq!(list("resourceVersion=x").0, 400);
    let (code, status) = list("resourceVersion=9999");
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    assert_eq!(get(&server, &format!("{WIDGETS}/b?resourceVersion=9999")).0, 504);
    server.compact();
    assert_eq!(list(&format!("resourceVersion={then}&resourceVersionMatch=Exact")).0, 410);
}

#[test]
fn only_reads_of_any_version_lag() {
    let server = five();
    let then = server.revision();
    delete(&server, &format!("{WIDGETS}/a"), &Value::Null);
    let count = |query: &str| {
        let answer = server.call_at(request("GET", &format!("{WIDGETS}?{query}"), "", &Value::Null), "test", then);
        let list = answer.json();
        (names(&list).len(), version(&list) == then)
    };
    assert_eq!(count("resourceVersion=0"), (5, true));
    assert_eq!(count(""), (4, false));
    let one = |query: &str| {
        let uri = format!("{WIDGETS}/a?{query}");
        server.call_at(request("GET", &uri, "", &Value::Null), "test", then).status().as_u16()
    };
    assert_eq!((one("resourceVersion=0"), one("")), (200, 404));
}

#[test]
fn metadata_alone_is_shown_when_asked_for() {
    let server = five();
    let ask = |uri: &str, accept: &str| {
        let mut request = request("GET", uri, "", &Value::Null);
        request.headers_mut().insert("accept", accept.parse().unwrap());
        server.call(request, "test").json()
    };
    let one = ask(&format!("{WIDGETS}/a"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    assert_eq!((&one["kind"], one.get("spec")), (&json!("PartialObjectMetadata"), None));
    assert_eq!(one["metadata"], server.get("Widget", "devices", "a").unwrap()["metadata"]);
    let list = ask(WIDGETS, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    assert_eq!((&list["kind"], &list["items"][4]["kind"]), (&json!("PartialObjectMetadataList"), &one["kind"]));
}

#[test]
fn the_server_says_what_it_serves() {
    let server = server();
    assert_eq!(get(&server, "/version").1["major"], "1");
    assert_eq!(get(&server, "/api/v1").1["kind"], "APIResourceList");
    assert_eq!(get(&server, "/apis/vpptoken.io/v1alpha1").1["resources"].as_array().unwrap().len(), 6);
    assert_eq!(get(&server, "/apis").1["groups"].as_array().unwrap().len(), 5);
    assert_eq!(get(&server, "/apis/nobody.io/v1").0, 404);
    let list = get(&server, "/api/v1/namespaces").1;
    assert_eq!((&list["kind"], list["items"][0].get("kind")), (&json!("NamespaceList"), None));
}
