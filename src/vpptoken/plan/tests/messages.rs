//! What messages name, and how long they get.

use super::*;

#[test]
fn messages_name_what_a_person_has_to_act_on() {
    let message = |world: &World| plan(&world.observe()).blockers[0].message.clone();
    let mut world = World::new_object();
    world.tokens = vec![older("t2"), older("t3")];
    let text = message(&world);
    for part in ["t2 (expires 2026-12-01T12:00:00Z)", "t3", "tokenId", "distinctFrom"] {
        assert!(text.contains(part), "{text}");
    }
    world.tokens = (10..32).map(|n| older(&format!("t{n}"))).collect();
    assert!(message(&world).contains("and 2 more"), "{}", message(&world));
    world.file = Err(FileProblem::Malformed("at byte 7".into()));
    let text = message(&world);
    for part in ["\"berlin-vpp\"", "\"token\"", "at byte 7"] {
        assert!(text.contains(part), "{text}");
    }
    let mut world = World::ready();
    world.claimed(OURS, ago(DAY * 31), "uid-secret");
    let text = message(&world);
    assert!(text.contains(OURS) && !text.contains("uid-secret"), "{text}");
}

#[test]
fn texts_of_graph_are_cut_before_they_are_shown() {
    let mut world = World::ready();
    let long = "x".repeat(100_000);
    let token = world.token();
    for text in [
        &mut token.state,
        &mut token.last_sync_status,
        &mut token.organization_name,
        &mut token.vpp_token_account_type,
        &mut token.apple_id,
        &mut token.country_or_region,
        &mut token.display_name,
        &mut token.location_name,
    ] {
        *text = Some(format!("\u{7}{long}"));
    }
    token.role_scope_tag_ids = Some((0..1_000).map(|n| format!("{n}{long}")).collect());
    world.attempts.tries.insert(Field::CountryOrRegion, ("de".into(), 3));
    world.attempts.tries.insert(Field::AppleId, (APPLE_ID.into(), 3));
    world.file().sha256 = "digest-2".into();
    let plan = plan(&world.observe());
    assert!(plan.blockers.iter().any(|blocker| blocker.reason == Reason::SettingNotAccepted));
    let status = serde_json::to_string(&plan.status).unwrap();
    assert!(status.len() < 100_000 && !status.contains("\\u0007"), "{} characters", status.len());
    for condition in &plan.status.conditions {
        assert!(condition.message.len() < 10_000, "{} characters", condition.message.len());
    }
}
