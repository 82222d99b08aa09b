//! A token that another VppToken has, or claims, too.

use jiff::Timestamp;

use super::draft::Draft;
use crate::api::{ClaimedByAnother, Reason};
use crate::vpptoken::claims::Owner;

/// Sorts the owner of a token first: the elder, then the one with the lower UID.
type Precedence<'a> = (Timestamp, &'a str);

/// Whether the token of a VppToken belongs to another one.
pub(super) fn belongs_to_other(draft: &Draft, id: &str) -> bool {
    let object = &draft.observed.object;
    let own: Precedence = (object.created, &object.uid);
    owner(draft, id).is_some_and(|owner| precedence(&owner) < own)
}

/// The other VppToken that has a token: of several, the one that takes precedence.
fn owner(draft: &Draft, id: &str) -> Option<Owner> {
    draft.observed.others.claims.owners(id).min_by(|one, other| precedence(one).cmp(&precedence(other)))
}

fn precedence(owner: &Owner) -> Precedence<'_> {
    (owner.created, &owner.uid)
}

/// Another VppToken has the token that the file belongs to.
pub(super) fn stall_on_owner_of_file(draft: &mut Draft, id: &str, advice: &str) {
    let secret = draft.observed.spec.token_secret_ref.clone();
    draft.status.claimed_by_another =
        secret.map(|token_secret_ref| Box::new(ClaimedByAnother { token_id: id.to_owned(), token_secret_ref }));
    let owner = owner_of(draft, id);
    draft.stall(
        Reason::ClaimedByAnother,
        format!(
            "The token file belongs to the token {id} in Graph, which {owner} has. Delete one of the two. {advice}"
        ),
    );
}

/// Another VppToken has the token.
pub(super) fn stall_on_owner(draft: &mut Draft, id: &str) {
    let owner = owner_of(draft, id);
    draft.stall(
        Reason::ClaimedByAnother,
        format!("The token {id} in Graph already belongs to {owner}. Delete one of the two."),
    );
}

/// The other VppToken that has a token. Objects of other namespaces are not named.
fn owner_of(draft: &Draft, id: &str) -> String {
    let Some(owner) = owner(draft, id) else { return "another VppToken".to_owned() };
    match owner.name {
        Some(name) => format!("VppToken \"{name}\" in this namespace"),
        None => "a VppToken in another namespace".to_owned(),
    }
}
