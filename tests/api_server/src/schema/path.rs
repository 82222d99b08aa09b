//! The position of something in an object, written out only when it is shown.

use std::fmt;

/// A path, as its last step and the path to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// As errors name it: the object itself has a name, too.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Root => "<nil>".into(),
            path => path.to_string(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, n) => write!(f, "{parent}[{n}]"),
        }
    }
}
