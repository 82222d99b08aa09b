//! Tokens that Graph already has: an exact match, similar ones, and one that the manifest names.

use super::*;

/// The status shows that another VppToken has the token of the file.
fn stalled_as_anothers(world: &mut World) {
    world.tokens = vec![token("t2")];
    world.claimed("t2", ago(DAY), "uid-9");
    world.observed.status = plan(&world.observe()).status;
    assert_eq!(world.status.conditions[0].reason, "ClaimedByAnother");
    assert_eq!(world.status.claimed_by_another.as_ref().unwrap().token_id, "t2");
    // Whatever else was reported since, and by whichever process.
    world.status.conditions.clear();
}

#[test]
fn an_exact_match_is_adopted_and_a_similar_token_makes_it_stop() {
    check(
        World::new_object,
        &[
            (
                "one exact match",
                |w| w.tokens = vec![token("t2")],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "one that never synced counts as uploaded now",
                |w| {
                    w.tokens = vec![Entity { last_sync: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", now())).no_token(),
            ),
            (
                "one that was changed after its last sync counts as uploaded now",
                |w| w.tokens = vec![Entity { last_modified: Some(ago(HOUR * 3 - SECOND * 2)), ..token("t2") }],
                working(Reason::Creating).step(adopt("t2", now())).no_token(),
            ),
            (
                "a sync itself changes it a moment later",
                |w| w.tokens = vec![Entity { last_modified: Some(ago(HOUR * 3 - SECOND)), ..token("t2") }],
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "Apple ID and organization are compared without case",
                |w| {
                    w.tokens = vec![Entity {
                        apple_id: Some(APPLE_ID.to_uppercase()),
                        organization_name: Some("CONTOSO".into()),
                        ..token("t2")
                    }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "missing values count as equal",
                |w| {
                    w.tokens = vec![Entity { apple_id: None, organization_name: None, ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "a missing Apple ID counts as equal, and another expiry does not",
                |w| w.tokens = vec![Entity { apple_id: None, ..older("t2") }],
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "without Apple ID and expiry: similar by its organization, and no exact match",
                |w| w.tokens = vec![Entity { apple_id: None, expiration: None, ..token("t2") }],
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "the file's expiry under another Apple ID, which may be mistyped",
                |w| w.tokens = vec![of_another(token("t2"))],
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "another Apple ID, and no expiry: it may be the file's",
                |w| w.tokens = vec![Entity { expiration: None, ..of_another(token("t2")) }],
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "the file's expiry under another Apple ID, to the second",
                |w| w.tokens = vec![Entity { expiration: Some(expiry() + SECOND), ..of_another(token("t2")) }],
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "an exact match beside one of another Apple ID that expires in the same second",
                |w| w.tokens = vec![of_another(token("t2")), token("t3")],
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "the expiry is compared to the second",
                |w| {
                    w.tokens =
                        vec![Entity { expiration: Some(expiry() + SignedDuration::from_millis(999)), ..token("t2") }];
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "an exact match beside a similar one",
                |w| w.tokens = vec![older("t2"), token("t3")],
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "adopting is not allowed",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.forbid(Permission::Adopt);
                },
                stalled(Reason::OperationNotAllowed).no_token(),
            ),
            (
                "several exact matches",
                |w| w.tokens = vec![token("t2"), token("t3")],
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "several, of which one is another's",
                |w| {
                    w.tokens = vec![older("t2"), token("t3"), token("t4")];
                    w.claimed("t2", ago(DAY), "uid-1");
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            ("a similar one", |w| w.tokens = vec![older("t2")], stalled(Reason::SimilarTokenExists).no_token()),
            (
                "one without an expiry is similar",
                |w| {
                    w.tokens = vec![Entity { expiration: None, ..token("t2") }];
                },
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "a similar one of another location, however its id is written",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.distinct(&["t9", "T2"]);
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "two similar ones, of which one is of another location",
                |w| {
                    w.tokens = vec![older("t2"), older("t3")];
                    w.distinct(&["t2"]);
                },
                stalled(Reason::SimilarTokenExists).no_token(),
            ),
            (
                "an exact match beside a similar one of another location: as in a cluster that is rebuilt",
                |w| {
                    w.tokens = vec![older("t2"), token("t3")];
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "an exact match beside one of another location that expires in the same second",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "several exact matches beside one of another location",
                |w| {
                    w.tokens = vec![token("t2"), token("t3"), token("t4")];
                    w.distinct(&["t2"]);
                },
                stalled(Reason::AmbiguousMatch).no_token(),
            ),
            (
                "one that expires in the same second is of another location, and nobody's",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "one that expires in the same second is of another location, and another VppToken's",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "another VppToken's expires in the same second as an exact match that nobody has",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.claimed("t2", ago(DAY), "uid-9");
                },
                working(Reason::Creating).step(adopt("t3", ago(HOUR * 3))).no_token(),
            ),
            (
                "so, and the very file was uploaded to another VppToken's",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.claims.add_file("digest-1", "t2", "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "two others' expire in the same second, of which one is of another location",
                |w| {
                    w.tokens = vec![token("t2"), token("t3")];
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.claimed("t3", ago(DAY), "uid-8");
                    w.distinct(&["t2"]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "the exact match is another's, though Graph does not name its Apple ID and organization",
                |w| {
                    w.tokens = vec![Entity { apple_id: None, organization_name: None, ..token("t2") }];
                    w.claimed("t2", ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and Graph shows another expiry; no location has another's file",
                |w| {
                    w.tokens = vec![older("t2")];
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.claims.add_file("digest-1", "t2", "uid-9");
                    w.distinct(&["t2"]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and no list shows its token yet",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.claims.add_file("digest-1", "t2", "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken uploaded the very file, and its token is gone: that one decides",
                |w| {
                    w.claimed("t2", ago(DAY), "uid-9");
                    w.others.claims.add_file("digest-1", "t2", "uid-9");
                    w.confirmed_absent.push(("t2".into(), ago(SECOND)));
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "stalled because of another's token, which was renewed since",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so stalled, and a person says that it is of another location",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.distinct(&["t2"]);
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "so stalled, and the other lets go",
                |w| {
                    stalled_as_anothers(w);
                    w.others.claims = OthersClaims::default();
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "so stalled, and a part of the manifest changed that says nothing of the file",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.status.observed_generation = Some(2);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so stalled, and the manifest names another Apple ID",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.spec.apple_id = Some("other@contoso.example".into());
                },
                working(Reason::Creating)
                    .step(Step::RecordIntent(PendingCreate {
                        apple_id: "other@contoso.example".into(),
                        ..pending(now(), &[])
                    }))
                    .no_token(),
            ),
            (
                "so stalled, and the other lets go, while a third has one of another location",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens.push(older("t3"));
                    w.others.claims = OthersClaims::default();
                    w.claimed("t3", ago(DAY), "uid-8");
                },
                working(Reason::Creating).step(adopt("t2", ago(HOUR * 3))).no_token(),
            ),
            (
                "so stalled, and the manifest names another Secret",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    w.spec.token_secret_ref.as_mut().unwrap().name = "munich-vpp".into();
                },
                working(Reason::Creating).step(record_intent(&["t2"])).no_token(),
            ),
            (
                "so stalled, and the other's token has another Apple ID by now",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![Entity { apple_id: Some("vpp.munich@contoso.example".into()), ..older("t2") }];
                },
                working(Reason::Creating).step(record_intent(&[])).no_token(),
            ),
            (
                "so stalled, and the tenant was away meanwhile",
                |w| {
                    stalled_as_anothers(w);
                    let tenant = std::mem::replace(&mut w.observed.tenant, TenantState::NotFound);
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "TenantNotFound");
                    (w.observed.tenant, w.tokens) = (tenant, vec![older("t2")]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so stalled, and the Secret was away meanwhile",
                |w| {
                    stalled_as_anothers(w);
                    let file = std::mem::replace(&mut w.observed.file, Err(FileProblem::SecretNotFound));
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "SecretNotFound");
                    (w.observed.file, w.tokens) = (file, vec![older("t2")]);
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "so stalled, and the other let go, and a third one took it over",
                |w| {
                    stalled_as_anothers(w);
                    w.tokens = vec![older("t2")];
                    let claims = std::mem::take(&mut w.others.claims);
                    w.observed.status = plan(&w.observe()).status;
                    assert_eq!(w.status.conditions[0].reason, "SimilarTokenExists");
                    w.others.claims = claims;
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "another VppToken has the very file",
                |w| {
                    w.tokens = vec![token("t2")];
                    w.claimed("t2", ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
        ],
    );
}

#[test]
fn an_exact_match_is_taken_over_though_the_schedule_is_wrong() {
    let mut world = World::new_object();
    world.tokens = vec![token(OURS)];
    world.schedule("* * * * *");
    let plan = plan(&world.observe());
    assert!(matches!(plan.step, Some(Step::Adopt { .. })), "{:?}", plan.step);
    assert_eq!(plan.blockers[0].reason, Reason::ScheduleInvalid);
}

#[test]
fn a_similar_token_is_reported_with_how_it_differs_and_what_is_missing() {
    let messages_of = |token: Entity| {
        let mut world = World::new_object();
        world.tokens = vec![token];
        let text = plan(&world.observe()).blockers[0].message.clone();
        world.forbid(Permission::Bind);
        (text, plan(&world.observe()).blockers[0].message.clone())
    };
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part}: {text}");
    let lacks = |text: &str, part: &str| assert!(!text.contains(part), "{part}: {text}");

    let (text, to_others) = messages_of(of_another(token("t2")));
    has(&text, "t2 (Apple ID other@contoso.example, expires when the file does)");
    has(&text, &format!("appleId of the manifest, {APPLE_ID}, may be mistyped"));
    has(&to_others, "t2 (another Apple ID, expires when the file does)");
    has(&to_others, "may be mistyped");
    lacks(&to_others, "other@contoso.example");

    let (text, to_others) = messages_of(older("t2"));
    has(&text, "t2 (expires 2026-12-01T12:00:00Z)");
    lacks(&text, "mistyped");
    has(&to_others, "t2 (another expiry)");
    has(&to_others, "once the ClusterGraphTenant allows Bind");
    lacks(&to_others, "2026-12-01");

    let (text, _) = messages_of(Entity { apple_id: None, ..older("t2") });
    has(&text, "t2 (Apple ID missing, expires 2026-12-01T12:00:00Z)");
    let (text, _) = messages_of(Entity { organization_name: None, expiration: None, ..token("t2") });
    has(&text, "t2 (expiry missing, organization missing)");
    lacks(&text, "mistyped");
    let (text, _) = messages_of(Entity { expiration: None, ..of_another(token("t2")) });
    has(&text, "t2 (Apple ID other@contoso.example, expiry missing)");
    lacks(&text, "mistyped");
    let (text, _) = messages_of(Entity { apple_id: Some("x".repeat(5_000)), ..token("t2") });
    assert!(text.len() < 1_000, "a text of Graph's of any length");
}

#[test]
fn who_has_the_token_is_named_when_it_is_in_the_same_namespace_and_there_is_a_way_out() {
    let message_of = |world: &World| plan(&world.observe()).blockers[0].message.clone();
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part}: {text}");
    fn by_file() -> World {
        let mut world = World::new_object();
        world.tokens = vec![token("t2")];
        world
    }
    fn by_id() -> World {
        let mut world = by_file();
        world.spec.token_id = Some("t2".into());
        world
    }
    fn younger() -> World {
        let mut world = World::ready();
        world.object.created = now();
        world
    }
    for (base, id) in [(by_file as fn() -> World, "t2"), (by_id, "t2"), (younger, OURS)] {
        let mut world = base();
        world.claimed_here(id, "berlin");
        has(&message_of(&world), "VppToken \"berlin\" in this namespace");
        let mut world = base();
        world.claimed(id, ago(DAY), "uid-secret");
        has(&message_of(&world), "a VppToken in another namespace");
    }

    let mut world = by_file();
    world.claimed_here("t2", "berlin");
    has(&message_of(&world), "list t2 in distinctFrom");
    world.others.claims.add_file("digest-1", "t2", "uid-9");
    assert!(!message_of(&world).contains("distinctFrom"), "it would not help: {}", message_of(&world));
    has(&message_of(&world), "put that location's file into the Secret");
}

#[test]
fn a_token_that_the_manifest_names_is_bound_by_its_id() {
    fn named() -> World {
        let mut world = World::new_object();
        world.tokens = vec![older("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10")];
        world.spec.token_id = Some("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10".into());
        world
    }
    let bind = || working(Reason::Updating).step(Step::Bind { id: named().token().id.clone() }).no_token();
    check(
        named,
        &[
            ("it is there", |_| {}, bind()),
            (
                "ids are GUIDs, whatever their case",
                |w| {
                    let id = w.spec.token_id.clone().unwrap();
                    w.spec.token_id = Some(id.as_str().to_uppercase().as_str().into());
                },
                bind(),
            ),
            ("a similar one is there too", |w| w.tokens.push(token("t2")), bind()),
            (
                "it is not in the list: asked for, it may have come since",
                |w| w.tokens.clear(),
                working(Reason::Updating).step(Step::Confirm { id: named().token().id.clone() }).no_token(),
            ),
            (
                "asking for it failed: only a 404 says that it is not there",
                |w| {
                    w.tokens.clear();
                    w.failed(StepKind::Confirm, ErrorKind::Unavailable);
                },
                waiting(Reason::GraphUnavailable).no_token().requeue_after(MINUTE),
            ),
            (
                "asking for it failed, and is tried again",
                |w| {
                    w.tokens.clear();
                    w.failed(StepKind::Confirm, ErrorKind::OutcomeUnknown).not_before = now();
                },
                waiting(Reason::GraphUnavailable).step(Step::Confirm { id: named().token().id.clone() }).no_token(),
            ),
            (
                "a GET did not find it",
                |w| {
                    w.tokens.clear();
                    w.missing = vec![(named().token().id.clone(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            (
                "it is not there",
                |w| {
                    w.tokens.clear();
                    w.confirmed_absent = vec![(named().token().id.clone(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            (
                "it is still not there: not asked for again",
                |w| {
                    w.tokens.clear();
                    w.confirmed_absent = vec![(named().token().id.clone(), ago(SECOND))];
                    w.observed.status = plan(&w.observe()).status;
                    w.confirmed_absent.clear();
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
            ("binding is not allowed", |w| w.forbid(Permission::Bind), stalled(Reason::OperationNotAllowed).no_token()),
            (
                "another VppToken has it",
                |w| {
                    let id = w.token().id.clone();
                    w.claimed(&id, ago(DAY), "uid-9");
                },
                stalled(Reason::ClaimedByAnother).no_token(),
            ),
            (
                "the file is missing: that only concerns the upload",
                |w| w.file = Err(FileProblem::SecretNotFound),
                bind(),
            ),
        ],
    );
    check(
        World::ready,
        &[
            (
                "bound a moment ago: the file is uploaded",
                |w| w.status.uploaded = None,
                working(Reason::Uploading).step(upload()),
            ),
            (
                "bound, and the named token is gone: not created again",
                |w| {
                    w.spec.token_id = Some(OURS.into());
                    w.tokens.clear();
                    w.confirmed_absent = vec![(OURS.into(), ago(SECOND))];
                },
                stalled(Reason::TokenNotFound).no_token(),
            ),
        ],
    );
}

#[test]
fn a_token_id_that_names_another_token_is_reported() {
    let row = (
        "tokenId names another one",
        (|w| w.spec.token_id = Some("5f9ad6ad-97a4-4ca1-8d2c-0e6d4e2f7b10".into())) as fn(&mut World),
        stalled(Reason::AlreadyBound),
    );
    check(World::ready, &[row]);
}

#[test]
fn what_counts_as_uploaded_has_a_time_of_the_wall_clock() {
    // The wall clock was set back by an hour after the process had started.
    let adopted = |mut world: World| {
        world.observed.now = now() + HOUR;
        world.lists = vec![(world.now - MINUTE * 3, BTreeSet::new())];
        plan(&world.observe()).step
    };
    let mut found = World::new_object();
    found.tokens = vec![Entity { last_sync: None, ..token("t2") }];
    assert_eq!(adopted(found), Some(adopt("t2", now())), "found, and never synced");
    let mut created = World::new_object();
    created.tokens = vec![token("t2")];
    created.pending(now() + HOUR - MINUTE * 5, &[]);
    let recorded = ago(MINUTE * 5);
    assert_eq!(adopted(created), Some(adopt_created("t2", recorded)), "the result of a create whose answer was lost");
}
