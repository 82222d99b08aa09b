//! Who owns which fields: sets of fields, how values of a schema are compared and merged, and the managers of an object.

mod managers;
mod set;
pub(crate) mod typed;

pub(crate) use managers::{Conflicts, Managers, Operation, Writer, Writing};
pub(crate) use set::write_json;
