//! Writes other than deletions: what a request asks for becomes the next version of an object, or is refused.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::decode::{self, Decoded, Strictness};
use crate::failure::{Failure, FieldError};
use crate::fields::{Conflicts, Managers, Operation, Writer, Writing, typed};
use crate::journal::Verb;
use crate::request::Call;
use crate::resource::{Resource, Role};
use crate::state::{State, Stored};
use crate::{metadata, patch, read, roles, schema};

/// Times in metadata are of whole seconds.
pub(crate) fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Answers POST.
pub(crate) fn create(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let body = decode::json(&call.body)?;
    let decoded = decode::object(&call.resource, body, Strictness::of(call))?;
    insert(state, call, Verb::Create, decoded, now)
}

/// Puts a new object into the store.
fn insert(state: &mut State, call: &Call, verb: Verb, decoded: Decoded, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    let Decoded { mut value, managers } = decoded;
    let meta = &mut value["metadata"];
    let name = match (meta["name"].as_str().unwrap_or_default(), meta["generateName"].as_str()) {
        ("", Some(prefix)) if !prefix.is_empty() => format!("{prefix}{}", suffix(state.next_number())),
        (name, _) => name.to_owned(),
    };
    if !name.is_empty() {
        meta["name"] = name.as_str().into();
    }
    decode::place(resource, &mut value, &call.namespace)?;
    admit(state, resource, &call.namespace, &name)?;
    if value["metadata"]["resourceVersion"].is_string() {
        return Err(Failure::internal("resourceVersion should not be set on objects to be created"));
    }
    let managers = match (verb, managers) {
        (Verb::Apply, managers) => managers.unwrap_or_default(),
        (_, managers) => {
            let writing = writing(call, Operation::Update, now);
            managers.unwrap_or_default().updated(&writing, &empty(resource), &value)
        }
    };
    let uid = state.next_uid();
    let meta = metadata::object(&mut value);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".into(), uid.into());
    meta.insert("creationTimestamp".into(), seconds(now).to_string().into());
    if resource.has_generation() {
        meta.insert("generation".into(), 1.into());
    }
    roles::prepare_create(resource, &mut value, now);
    let mut errors = metadata::check(resource, &value);
    schema::check(&resource.schema, &value, schema::Path::Root, &mut errors);
    errors.extend(roles::check(resource, &value));
    if !errors.is_empty() {
        return Err(Failure::invalid(resource, &name, &errors));
    }
    let is_completed = completed(resource, &mut value);
    let key = resource.key(&call.namespace, &name);
    if let Some(existing) = state.get(resource, &key) {
        return Err(Failure::already_exists(resource, &name, existing.is_being_deleted()));
    }
    if call.is_dry_run() {
        return Ok(read::object(201, &Stored::new(Arc::new(value), managers, 0), call.shape()));
    }
    let stored = state.store(resource, key, value, managers, is_completed, now);
    record(state, call, verb, None, Some(&stored), false, now);
    roles::stored(state, resource, &stored);
    Ok(read::object(201, &stored, call.shape()))
}

/// Makes an object what is read back: the status, which a new object can't choose, gets its default only then. Says whether
/// it did.
fn completed(resource: &Resource, value: &mut Value) -> bool {
    let has_status = |value: &Value| value.get("status").is_some();
    let had_status = has_status(value);
    schema::fill(&resource.schema, value, schema::Nulls::Missing);
    !had_status && has_status(value)
}

/// Whether a namespace, and a definition, take new objects.
fn admit(state: &State, resource: &Resource, namespace: &str, name: &str) -> Result<(), Failure> {
    if resource.is_namespaced {
        let Some(table) = state.tables.get("namespaces") else { return Ok(()) };
        let found = table.objects.get(namespace).ok_or_else(|| Failure::not_found(&table.resource, namespace))?;
        if found.value["status"]["phase"] == "Terminating" || found.is_being_deleted() {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let cause = json!({
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated"),
            });
            return Err(Failure::forbidden(resource, name, &why, json!([cause])));
        }
    }
    if crate::definitions::is_terminating(state, resource) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Failure::forbidden(resource, name, why, Value::Null));
    }
    Ok(())
}

/// Five characters that distinguish generated names.
fn suffix(number: u64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base = LETTERS.len() as u64;
    // Scattered, so that the order of names is not the order of creation.
    let mut rest = number.wrapping_mul(7_368_787) % base.pow(5);
    let mut suffix = String::new();
    for _ in 0..5 {
        let at = usize::try_from(rest % base).unwrap_or_default();
        suffix.push(char::from(LETTERS.get(at).copied().unwrap_or(b'b')));
        rest /= base;
    }
    suffix
}

fn empty(resource: &Resource) -> Value {
    json!({ "apiVersion": resource.api_version(), "kind": resource.kind })
}

fn writing(call: &Call, operation: Operation, now: Timestamp) -> Writing<'_> {
    let resource = &call.resource;
    let (name, subresource) = (call.manager(), call.subresource.clone());
    Writing {
        schema: &resource.schema,
        writer: Writer { name, operation, api_version: resource.api_version(), subresource },
        reset: resource.reset_fields(call.is_status()),
        now: seconds(now),
    }
}

/// Answers PUT.
pub(crate) fn replace(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    let body = decode::json(&call.body)?;
    let decoded = decode::object(resource, body, Strictness::of(call))?;
    decode::check_name(&decoded.value, call)?;
    let Some(existing) = state.get(resource, &call.key()).cloned() else {
        if resource.role == Role::Event {
            return insert(state, call, Verb::Create, decoded, now);
        }
        return Err(Failure::not_found(resource, call.name()));
    };
    if let Some(uid) = decoded.value["metadata"]["uid"].as_str()
        && uid != existing.text("uid")
    {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: UID in precondition: {uid}, UID in object meta: {}",
            call.key(),
            existing.text("uid")
        );
        return Err(Failure::conflict(resource, call.name(), &why));
    }
    update(state, call, Verb::Update, &existing, decoded, now)
}

/// Answers PATCH.
pub(crate) fn patch(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    if call.content_type == patch::APPLY {
        return apply(state, call, now);
    }
    if call.query.get("force").is_some() {
        let errors = [FieldError::forbidden("force", "may not be specified for non-apply patch")];
        return Err(Failure::invalid_kind("meta.k8s.io", "PatchOptions", "", &errors));
    }
    let kind = patch::Kind::of(resource, &call.content_type)?;
    let body = decode::json(&call.body)?;
    let not_found = || Failure::not_found(resource, call.name());
    let existing = Arc::clone(state.get(resource, &call.key()).ok_or_else(not_found)?);
    let mut value = (*existing.value).clone();
    kind.apply(&mut value, &body)?;
    let decoded = decode::object(resource, value, Strictness::of(call)).map_err(Failure::of_patch)?;
    decode::check_name(&decoded.value, call)?;
    update(state, call, Verb::Patch, &existing, decoded, now)
}

/// Server-side apply.
fn apply(state: &mut State, call: &Call, now: Timestamp) -> Result<Answer, Failure> {
    let resource = &call.resource;
    let config = decode::applied(call)?;
    let existing = state.get(resource, &call.key()).cloned();
    if existing.is_none() && call.is_status() {
        return Err(Failure::not_found(resource, call.name()));
    }
    let writing = writing(call, Operation::Apply, now);
    let nobody = Managers::default();
    let live = existing.as_ref().map_or_else(|| Arc::new(empty(resource)), |existing| Arc::clone(&existing.value));
    let before = match &existing {
        Some(existing) if existing.managers.0.is_empty() => &before_first_apply(&writing, resource, &live),
        Some(existing) => &existing.managers,
        None => &nobody,
    };
    let applied = before
        .applied(&writing, &live, &config, call.query.flag("force"))
        .map_err(|Conflicts(conflicts)| Failure::apply_conflict(&conflicts))?;
    let mut decoded = decode::merged(resource, applied.object)?;
    decoded.managers = Some(applied.managers);
    decode::check_name(&decoded.value, call)?;
    let Some(existing) = existing else {
        if let Some(uid) = config["metadata"]["uid"].as_str() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(resource, call.name(), &why));
        }
        metadata::object(&mut decoded.value).remove("resourceVersion");
        return insert(state, call, Verb::Apply, decoded, now);
    };
    update(state, call, Verb::Apply, &existing, decoded, now)
}

/// Who owns an object that nobody owned until somebody applied.
fn before_first_apply(writing: &Writing, resource: &Resource, live: &Value) -> Managers {
    let operation = Operation::Update;
    let writer = Writer { name: "before-first-apply".into(), operation, ..writing.writer.clone() };
    Managers::default().updated(&Writing { writer, ..*writing }, &empty(resource), live)
}

/// Makes what was sent the next version of an object.
fn update(
    state: &mut State,
    call: &Call,
    verb: Verb,
    existing: &Arc<Stored>,
    decoded: Decoded,
    now: Timestamp,
) -> Result<Answer, Failure> {
    let resource = &call.resource;
    let Decoded { value: mut new, managers } = decoded;
    let mut managers = match (verb, managers) {
        (Verb::Apply, managers) => managers.unwrap_or_default(),
        (_, sent) => {
            // Managed fields are changed through the object only, not through its status.
            let base = sent.filter(|_| !call.is_status()).unwrap_or_else(|| existing.managers.clone());
            // Where nothing is owned any more, ownership begins anew with the first apply.
            if base.0.is_empty() {
                base
            } else {
                base.updated(&writing(call, Operation::Update, now), &existing.value, &new)
            }
        }
    };
    check_version(call, existing, &new)?;
    decode::place(resource, &mut new, &call.namespace)?;
    let old_meta = existing.metadata();
    let meta = metadata::object(&mut new);
    meta.insert("resourceVersion".into(), old_meta["resourceVersion"].clone());
    for field in ["creationTimestamp", "generation"] {
        metadata::keep(meta, old_meta, field);
    }
    if call.is_status() {
        roles::prepare_status_update(resource, &mut new, &existing.value);
    } else {
        roles::prepare_update(resource, &mut new, &existing.value);
    }
    let meta = metadata::object(&mut new);
    if !meta.contains_key("uid") {
        metadata::keep(meta, old_meta, "uid");
    }
    if old_meta["deletionTimestamp"].is_string() {
        metadata::keep(meta, old_meta, "deletionTimestamp");
        metadata::keep(meta, old_meta, "deletionGracePeriodSeconds");
    }
    let mut errors = metadata::check(resource, &new);
    errors.extend(metadata::check_update(&new, &existing.value));
    schema::check(&resource.schema, &new, schema::Path::Root, &mut errors);
    errors.extend(roles::check(resource, &new));
    errors.extend(roles::check_update(resource, &new, &existing.value));
    if !errors.is_empty() {
        return Err(Failure::invalid(resource, call.name(), &errors));
    }
    let is_completed = completed(resource, &mut new);
    let is_same = new == *existing.value;
    if is_same && managers.is_same_but_for_times(&existing.managers) {
        managers = existing.managers.clone();
    }
    let is_noop = is_same && managers == existing.managers && is_completed == existing.is_completed_on_read;
    let is_emptied = existing.is_being_deleted()
        && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && old_meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !(resource.role == Role::Namespace && roles::has_content(&new));
    if call.is_dry_run() {
        return Ok(read::object(200, &Stored::new(Arc::new(new), managers, existing.revision), call.shape()));
    }
    if is_emptied {
        crate::delete::remove(state, resource, &call.key(), now);
        record(state, call, verb, Some(existing), None, false, now);
        return Ok(read::object(200, &Stored::new(Arc::new(new), managers, existing.revision), call.shape()));
    }
    if is_noop {
        record(state, call, verb, Some(existing), Some(existing), true, now);
        return Ok(read::object(200, existing, call.shape()));
    }
    let stored = state.store(resource, call.key(), new, managers, is_completed, now);
    record(state, call, verb, Some(existing), Some(&stored), false, now);
    roles::stored(state, resource, &stored);
    Ok(read::object(200, &stored, call.shape()))
}

/// Whether the write names this version, or none.
fn check_version(call: &Call, existing: &Stored, new: &Value) -> Result<(), Failure> {
    let resource = &call.resource;
    let wrong = |message: String| {
        let errors = [FieldError::invalid("metadata.resourceVersion", message)];
        Failure::invalid_kind(&resource.group, &resource.plural, call.name(), &errors)
    };
    match new["metadata"]["resourceVersion"].as_str() {
        None | Some("" | "0") if resource.allows_unconditional_update() => Ok(()),
        None | Some("" | "0") => Err(wrong("0: must be specified for an update".into())),
        Some(version) => match version.parse::<u64>() {
            Err(_) => Err(Failure::internal(format!("strconv.ParseUint: parsing \"{version}\": invalid syntax"))),
            Ok(version) if version != existing.revision => Err(Failure::modified(resource, call.name())),
            Ok(_) => Ok(()),
        },
    }
}

/// Notes what a request did.
pub(crate) fn record(
    state: &mut State,
    call: &Call,
    verb: Verb,
    old: Option<&Arc<Stored>>,
    new: Option<&Arc<Stored>>,
    is_noop: bool,
    at: Timestamp,
) {
    let is_deletion = matches!(verb, Verb::Delete | Verb::DeleteCollection);
    let manager = if is_deletion { String::new() } else { call.manager() };
    let by = (call.user.clone(), manager, verb, call.subresource.clone());
    state.note(&call.resource, by, old, new, is_noop, at);
}

/// What does not fit the schema of what is applied.
pub(crate) fn check_applied(resource: &Resource, config: &Value) -> Result<(), Failure> {
    let Some(misfit) = typed::misfit(&resource.schema, config, schema::Path::Root) else { return Ok(()) };
    let name = |field: &str| config["metadata"][field].as_str().unwrap_or_default().to_owned();
    let whose = format!("{}/{}; {}, Kind={}", name("namespace"), name("name"), resource.api_version(), resource.kind);
    Err(Failure::internal(format!("failed to create typed patch object ({whose}): {misfit}")))
}
