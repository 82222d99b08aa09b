//! What a person types: wrong manifests are refused with a message that says what to write, good ones are accepted, and
//! kubectl shows what the design specifies. Real kubectl, real API server.

use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use vpptoken_operator::api::VppToken;
use vpptoken_operator::schedule::{Schedule, ScheduleError};

use crate::support::{EXPIRES, LIMIT, Plane, World, until};

/// Processes of kubectl at a time.
const AT_A_TIME: usize = 4;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// What is in a folder of examples/, in order: files that are YAML, or folders.
fn listed(folder: &Path, folders: bool) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(
        |path| {
            if folders { path.is_dir() } else { path.extension().is_some_and(|extension| extension == "yaml") }
        },
    );
    paths.sort();
    paths
}

/// The message that a manifest expects to be refused with.
fn expected(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# expect: "));
    line.unwrap_or_else(|| panic!("{} does not say what to expect", path.display())).to_owned()
}

async fn namespace(plane: &Plane) -> String {
    let name = format!("manifests-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    plane.create_namespace(&plane.client().await, &name).await;
    name
}

/// Everything of ours in a namespace, and the ClusterGraphTenants with these names.
async fn ours(plane: &Plane, namespace: &str, names: &[String]) -> Vec<String> {
    let namespaced = plane.kubectl(&["get", "vpptokens,graphtenants", "-n", namespace, "-o", "name"]).await;
    let cluster = plane.kubectl(&["get", "clustergraphtenants", "-o", "name"]).await;
    assert!(namespaced.ok && cluster.ok, "{}{}", namespaced.stderr, cluster.stderr);
    let is_one_of_them = |line: &&str| names.iter().any(|name| line.ends_with(&format!("/{name}")));
    let cluster = cluster.stdout.lines().filter(is_one_of_them).map(str::to_owned).collect::<Vec<_>>();
    namespaced.stdout.lines().map(str::to_owned).chain(cluster).collect()
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_manifest_is_refused_with_its_sentence() {
    let plane = Plane::shared().await;
    let namespace = namespace(&plane).await;
    let wrong = listed(&examples().join("wrong"), false);
    assert!(wrong.len() >= 91, "there were 91 wrong manifests, and now are {}", wrong.len());
    let applied = stream::iter(&wrong).map(|path| {
        let (plane, namespace) = (&plane, &namespace);
        async move {
            let sentence = expected(path);
            let applied = plane.kubectl(&["apply", "-n", namespace, "-f", path.to_str().unwrap()]).await;
            if applied.ok {
                return Some(format!("{} was accepted", path.display()));
            }
            let is_refused_so = applied.stderr.contains(&sentence);
            let found = || format!("{} was refused with\n{}and not with\n{sentence}", path.display(), applied.stderr);
            (!is_refused_so).then(found)
        }
    });
    let failures: Vec<String> = applied.buffer_unordered(AT_A_TIME).filter_map(std::future::ready).collect().await;
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), wrong.len(), failures.join("\n"));
    let names: Vec<String> = wrong.iter().map(|path| name_of(path)).collect();
    assert_eq!(ours(&plane, &namespace, &names).await, Vec::<String>::new());
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_change_is_refused_with_its_sentence_and_changes_nothing() {
    let plane = Plane::shared().await;
    let namespace = namespace(&plane).await;
    let pairs = listed(&examples().join("wrong/updates"), true);
    assert!(pairs.len() >= 5, "there were 5 wrong changes, and now are {}", pairs.len());
    for pair in pairs {
        let (before, after) = (pair.join("before.yaml"), pair.join("after.yaml"));
        let (before, sentence, after) = (before.to_str().unwrap(), expected(&after), after.to_str().unwrap());
        let applied = plane.kubectl(&["apply", "-n", &namespace, "-f", before]).await;
        assert!(applied.ok, "{before}: {}", applied.stderr);
        let spec = ["get", "-n", &namespace, "-f", before, "-o", "jsonpath={.metadata.generation} {.spec}"];
        let spec_before = plane.kubectl(&spec).await.stdout;
        let applied = plane.kubectl(&["apply", "-n", &namespace, "-f", after]).await;
        assert!(!applied.ok, "{after} was accepted");
        assert!(applied.stderr.contains(&sentence), "{after} was refused with\n{}", applied.stderr);
        assert_eq!(plane.kubectl(&spec).await.stdout, spec_before, "{after}");
        assert!(spec_before.starts_with("1 {"), "{spec_before}");
        // Some belong to no namespace, and would stay.
        assert!(plane.kubectl(&["delete", "-n", &namespace, "-f", before, "--wait=false"]).await.ok);
    }
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted() {
    let plane = Plane::shared().await;
    let namespace = namespace(&plane).await;
    let values = examples().join("values.yaml");
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/vpptoken-operator");
    let rendered = plane
        .helm(&["template", "example", chart, "--namespace", &namespace, "--values", values.to_str().unwrap()])
        .await;
    assert!(rendered.ok, "{}", rendered.stderr);
    assert!(rendered.stdout.contains("kind: ClusterGraphTenant"), "{}", rendered.stdout);
    let mut manifests = vec![(values.display().to_string(), rendered.stdout)];
    for path in listed(&examples(), false).into_iter().filter(|path| *path != values) {
        // The namespaces of the examples are not there; one of the test's own stands for them.
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace("  namespace: devices", &format!("  namespace: {namespace}"))
            .replace("  namespace: school", &format!("  namespace: {namespace}"));
        manifests.push((path.display().to_string(), text));
    }
    assert!(manifests.len() >= 7, "there were 7 examples, and now are {}", manifests.len());
    for (path, text) in manifests {
        let applied = plane.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &text).await;
        assert!(applied.ok, "{path}: {}", applied.stderr);
        assert!(!applied.stderr.contains("arning"), "{path}: {}", applied.stderr);
    }
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}

/// The API server refuses what is no schedule at all; what the documentation names as a schedule, it has to take.
#[tokio::test(flavor = "multi_thread")]
async fn every_schedule_of_the_documentation_is_accepted() {
    let world = World::new().await;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schedules.md")).unwrap();
    let written = |heading: &str, cells: &[usize]| -> Vec<String> {
        let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
        let lines = section.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with('|')).skip(2);
        let cell = |line: &str, cell: usize| line.split('|').nth(cell).unwrap().split('`').nth(1).unwrap().to_owned();
        lines.flat_map(|line| cells.iter().map(move |number| cell(line, *number))).collect()
    };
    let mut schedules = written("What you can write", &[1, 3]);
    schedules.extend(written("When the clock changes", &[2]));
    assert!(schedules.len() >= 45, "there were 45 schedules, and now are {}: {schedules:?}", schedules.len());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for schedule in schedules {
        let mut spec = world.spec("berlin");
        spec["sync"] = json!({ "schedule": schedule });
        let object = VppToken::new("berlin", serde_json::from_value(spec).unwrap());
        let taken = world.tokens().create(&dry_run, &object).await;
        assert!(taken.is_ok(), "{schedule}: {taken:?}");
    }
    world.finish().await;
}

/// Parts of schedules, right and wrong, by field.
const PARTS: [&[&str]; 5] = [
    &[
        "0",
        "7",
        "00",
        "005",
        "59",
        "60",
        "*",
        "?",
        "*/15",
        "*/20",
        "*/14",
        "*/5",
        "*/1",
        "*/0",
        "*/59",
        "*/60",
        "?/30",
        "0,30",
        "0,10",
        "45,0",
        "50,5",
        "05,5",
        "0,15,30,45",
        "0,0,30",
        "0,1,2,3,4,5,6",
        "0-30",
        "0-45/15",
        "0-30/5",
        "0-14/14",
        "0-14/20",
        "30-30",
        "5/15",
        "5-1",
        "*,5",
        "1,,2",
        "0-59/1",
        "JAN",
        "-1",
        "1-",
    ],
    &["6", "*", "6,18", "0-5", "23", "24", "22-2", "*/6", "*/24", "?", "06", "8-18/2", "0-23", "99"],
    &["*", "1", "31", "32", "0", "1-7", "*/10", "30", "5-1", "?", "L", "15W", "1,15", "29-31", "1-31/31", "*/32"],
    &[
        "*", "2", "12", "13", "0", "jan", "JAN,jul", "FEB-DEC", "DEC-JAN", "1-12/3", "JANUARY", "Mar-5", "5-MAR",
        "*/12", "MON",
    ],
    &[
        "*",
        "0",
        "7",
        "8",
        "MON-FRI",
        "FRI-MON",
        "SAT-SUN",
        "SUN-SUN",
        "sun-tue",
        "1-5",
        "5-1",
        "mon,WED",
        "6-7",
        "MON-5",
        "FRI-2",
        "5-SUN",
        "MON-SUN/2",
        "*/7",
        "*/8",
        "MONDAY",
        "5L",
    ],
];

/// The API server checks a schedule by the same rules as the operator: it refuses nothing that the operator would
/// accept.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_no_schedule_that_the_operator_takes() {
    let plane = Plane::shared().await;
    let namespace = namespace(&plane).await;
    let tokens: Api<VppToken> = Api::namespaced(plane.client().await, &namespace);
    // Each part beside good ones, and then all kinds of mixtures.
    let usual = ["0", "6", "*", "*", "*"];
    let mut schedules = Vec::new();
    for (field, parts) in PARTS.iter().enumerate() {
        for part in *parts {
            let mut fields = usual;
            fields[field] = *part;
            schedules.push(fields.join(" "));
        }
    }
    for mixture in 0..300usize {
        let pick =
            |field: usize| PARTS[field][(mixture * 7919 + mixture * mixture * (field * 2 + 1)) % PARTS[field].len()];
        schedules.push((0..5).map(pick).collect::<Vec<_>>().join(if mixture % 2 == 0 { " " } else { "  " }));
    }
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let [mut by_both, mut by_operator] = [0, 0];
    for schedule in schedules {
        let sync = json!({ "schedule": schedule });
        let taken = Schedule::parse(&serde_json::from_value(sync.clone()).unwrap(), "uid", Timestamp::now());
        let spec = json!({ "tokenSecretRef": { "name": "a" }, "appleId": "vpp@contoso.example", "sync": sync });
        let object = VppToken::new("berlin", serde_json::from_value(spec).unwrap());
        match (tokens.create(&dry_run, &object).await, taken) {
            (Ok(_), Ok(_)) => {}
            (Err(error), Ok(_)) => panic!("{schedule} was refused: {error}"),
            (Err(kube::Error::Api(status)), Err(_)) => {
                assert!(status.is_invalid() && status.message.contains("spec.sync.schedule"), "{schedule}: {status:?}");
                assert!(!status.message.contains("evaluation"), "{schedule}: {}", status.message);
                by_both += 1;
            }
            (Err(error), Err(_)) => panic!("{schedule}: {error}"),
            (Ok(_), Err(ScheduleError::Cron { why, .. })) => {
                // What CEL can't check.
                let is_unseen = ["* stands alone", "the range ends before it begins"].iter().any(|it| why.contains(it));
                assert!(is_unseen, "{schedule} was accepted: {why}");
                by_operator += 1;
            }
            (Ok(_), Err(error)) => {
                let is_unseen = matches!(error, ScheduleError::NeverFires(_) | ScheduleError::TooFrequent { .. });
                assert!(is_unseen, "{schedule} was accepted: {error}");
                by_operator += 1;
            }
        }
    }
    assert!(
        by_both > 150 && by_operator < by_both / 5,
        "refused by both {by_both}, by the operator alone {by_operator}"
    );
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}

/// What is just about right is not refused with what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_at_the_edge_is_accepted() {
    let plane = Plane::shared().await;
    let namespace = namespace(&plane).await;
    let id = "5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10";
    let ids = |count: u32| (0..count).map(|n| format!("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f{n:04x}")).collect::<Vec<_>>();
    let token = |more: Value| {
        let mut spec = json!({ "tokenSecretRef": { "name": "berlin-vpp" }, "appleId": "vpp.berlin@contoso.example" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("VppToken", spec)
    };
    let tenant = |more: Value| {
        let mut spec = json!({
            "tenantId": "8D3F5B9E-0C1D-4F6A-9B57-1F0C5F2F7C11", "clientId": "1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3",
            "credentials": { "clientSecretRef": { "name": "graph" } },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (if more.get("allowedNamespaces").is_some() { "ClusterGraphTenant" } else { "GraphTenant" }, spec)
    };
    let selected =
        |selector: Value| tenant(json!({ "allowedNamespaces": { "from": "Selector", "selector": selector } }));
    let observed = |more: Value| {
        let mut spec = json!({ "managementPolicy": "Observe", "tokenId": id });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("VppToken", spec)
    };
    let long_label = "a".repeat(63);
    let long_name = [long_label.as_str(); 4].join(".")[..253].to_owned();
    let rows = [
        token(json!({ "tokenSecretRef": { "name": "0.a-b.c1", "key": ".token_1-A" } })),
        token(json!({ "tokenSecretRef": { "name": long_name, "key": "k".repeat(253) } })),
        token(json!({ "tokenSecretRef": { "name": "a", "key": "sToken_for_Berlin.vpptoken" } })),
        token(json!({ "tokenSecretRef": { "name": "a", "key": "a..b" } })),
        token(json!({ "tenantRef": { "kind": "GraphTenant", "name": "contoso.example" } })),
        token(json!({ "appleId": "vpp+berlin_1@sub.contoso.example" })),
        token(json!({ "appleId": "jürgen@münchen.example" })),
        token(json!({ "organizationName": "Contoso  GmbH & Co. KG" })),
        token(json!({ "organizationName": "株式会社コントソ", "displayName": "Zürich – Süd" })),
        token(json!({ "roleScopeTagIds": ["0", "7", "4294967296"] })),
        token(json!({ "countryOrRegion": "DE", "suspend": true, "deletionPolicy": "Delete" })),
        token(json!({ "distinctFrom": ids(64) })),
        token(json!({ "distinctFrom": [] })),
        token(json!({ "tokenId": id, "distinctFrom": ids(2) })),
        token(json!({ "sync": { "interval": "15m" } })),
        token(json!({ "sync": { "interval": "8760h" } })),
        token(
            json!({ "sync": { "schedule": "0-45/15 0-23/3 1-31 jan-DEC sun-SAT", "timeZone": "America/Argentina/Buenos_Aires" } }),
        ),
        token(json!({ "sync": { "schedule": "0,15,30,45   *  *   *  *" } })),
        observed(json!({})),
        observed(json!({ "suspend": false, "deletionPolicy": "Retain", "tenantRef": { "name": "contoso" } })),
        tenant(json!({ "pollInterval": "24h" })),
        tenant(json!({ "credentials": { "clientSecretRef": { "name": "graph.contoso", "key": "client.secret" } } })),
        tenant(json!({ "allowedNamespaces": { "from": "All" } })),
        tenant(json!({ "allowedNamespaces": { "from": "Names", "names": ["a", "0-1", long_label] } })),
        selected(json!({ "matchLabels": { "team": "", "contoso.example/Team_1": "A.b_c-d" } })),
        selected(json!({ "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "default"] },
            { "key": "intune", "operator": "In", "values": ["yes", ""] },
            { "key": "a", "operator": "Exists" },
            { "key": "b", "operator": "DoesNotExist", "values": [] },
        ] })),
    ];
    let items: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(row, (kind, spec))| {
            json!({
                "apiVersion": "vpptoken.io/v1alpha1", "kind": kind, "metadata": { "name": format!("row-{row}") }, "spec": spec,
            })
        })
        .collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
    let applied = plane.kubectl_with(&["apply", "--dry-run=server", "-n", &namespace, "-f", "-"], &list).await;
    assert!(applied.ok, "{}", applied.stderr);
    assert_eq!(applied.stdout.lines().count(), rows.len(), "{}", applied.stdout);
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}

/// kubectl separates columns by two spaces at least, and the name of a column has one at most.
fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

async fn table(world: &World, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
    let got = world.plane.kubectl(arguments).await;
    assert!(got.ok, "{}", got.stderr);
    let owned = |line: &str| cells(line).into_iter().map(str::to_owned).collect();
    let header = got.stdout.lines().next().unwrap_or_default();
    let row = got.stdout.lines().find(|line| line.contains("berlin")).unwrap_or_default();
    (owned(header), owned(row))
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_the_columns_of_the_design() {
    let world = World::new().await;
    let file = world.token("Contoso", &EXPIRES);
    world.create("berlin", &file, json!({ "sync": { "schedule": "0 6,18 * * *" } })).await;
    let status = world.wait_synced("berlin").await;
    let namespace = world.namespace.as_str();

    let usual = ["NAME", "STATE", "SYNC", "LAST SYNC", "EXPIRES", "READY", "AGE"];
    for resource in ["vpptokens", "vpptoken", "vpp"] {
        let (header, row) = table(&world, &["get", resource, "-n", namespace]).await;
        assert_eq!(header, usual, "{resource}");
        assert_eq!(row[..3], ["berlin", "valid", "completed"], "{resource}");
        assert_eq!(row[4..6], [EXPIRES.as_str(), "True"], "{resource}");
        assert_eq!(row.len(), usual.len(), "{row:?}");
    }
    // The other namespaces are those of tests that run side by side.
    let all = world.plane.kubectl(&["get", "vpptokens", "-A"]).await.stdout;
    assert_eq!(cells(all.lines().next().unwrap()), [&["NAMESPACE"][..], &usual[..]].concat());
    let row = all.lines().map(cells).find(|row| row[0] == namespace).unwrap();
    assert_eq!(row[1..4], ["berlin", "valid", "completed"]);

    let (header, row) = table(&world, &["get", "vpptokens", "-n", namespace, "-o", "wide"]).await;
    let wide = ["REASON", "ORGANIZATION", "APPLE ID", "TENANT", "TOKEN ID", "NEXT SYNC"];
    assert_eq!(header, [&usual[..6], &wide[..], &usual[6..]].concat());
    let next = status.next_sync_time.unwrap().to_string();
    let shown = ["UpToDate", "Contoso", "vpp.berlin@contoso.example", &world.tenant_id, &world.entities()[0].id, &next];
    assert_eq!(row[6..12], shown);

    let category = world.plane.kubectl(&["get", "intune", "-n", namespace, "-o", "name"]).await.stdout;
    assert!(category.lines().any(|line| line == "vpptoken.vpptoken.io/berlin"), "{category}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_the_fields() {
    let plane = Plane::shared().await;
    for (field, words) in [
        ("vpptoken.spec.sync", &["schedule", "timeZone", "interval", "When to sync licences"][..]),
        ("vpptoken.spec.deletionPolicy", &["`Retain` leaves Intune alone", "`Delete` deletes it there too"]),
        ("clustergraphtenant.spec.allowedOperations", &["`Create`", "`Adopt`", "`Bind`", "`Delete`"]),
    ] {
        let report = std::sync::Mutex::new(String::new());
        // The API server publishes the schema a moment after the definition is established.
        let explained = until(LIMIT, || async {
            let explained = plane.kubectl(&["explain", field]).await;
            *report.lock().unwrap() = explained.stdout + &explained.stderr;
            explained.ok
        })
        .await;
        let report = report.into_inner().unwrap();
        assert!(explained, "{field}: {report}");
        // Descriptions are broken into lines.
        let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(report.contains(word), "{field} lacks {word}: {report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_reconciled_yet_has_observed_generation_minus_one() {
    let plane = Plane::shared().await;
    // No operator manages this namespace. A ClusterGraphTenant is seen by those of other tests, so what counts is what the
    // API server answers to its creation.
    let namespace = namespace(&plane).await;
    let connection = json!({
        "tenantId": "8d3f5b9e-0c1d-4f6a-9b57-1f0c5f2f7c11",
        "clientId": "1b6f0b6e-4f0a-4e0d-8c56-b1a5f7f2d9c3",
        "credentials": { "clientSecretRef": { "name": "graph" } },
    });
    let mut cluster = connection.clone();
    cluster["allowedNamespaces"] = json!({ "from": "All" });
    let token = json!({ "tokenSecretRef": { "name": "berlin-vpp" }, "appleId": "vpp@contoso.example" });
    for (kind, name, spec) in [
        ("VppToken", "new", token),
        ("GraphTenant", "new", connection),
        ("ClusterGraphTenant", namespace.as_str(), cluster),
    ] {
        let manifest =
            json!({ "apiVersion": "vpptoken.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        let apply = ["apply", "-n", &namespace, "-f", "-", "-o", "json"];
        let applied = plane.kubectl_with(&apply, &manifest.to_string()).await;
        assert!(applied.ok, "{kind}: {}", applied.stderr);
        let created: Value = serde_json::from_str(&applied.stdout).unwrap();
        assert_eq!(created["status"], json!({ "observedGeneration": -1 }), "{kind}");
    }
    plane.kubectl(&["delete", "clustergraphtenant", &namespace, "--wait=false"]).await;
    plane.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await;
}
