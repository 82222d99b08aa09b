//! Values of the product as parts of a state that can be compared and hashed: by what `Debug` shows of them.

use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

/// Streams text into a hasher.
struct Into<'a, H: Hasher>(&'a mut H);

impl<H: Hasher> Write for Into<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A small value, hashed anew each time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Debug> Hash for Shown<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Writing into a hasher can't fail.
        let _ = write!(Into(state), "{:?}", self.0);
        state.write_u8(0xff);
    }
}

impl<T> Deref for Shown<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Shown<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A large value that does not change, hashed once.
pub(crate) struct Print<T>(Arc<(T, OnceLock<u64>)>);

impl<T> Print<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new((value, OnceLock::new())))
    }
}

impl<T> Clone for Print<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Print<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T: Debug> Debug for Print<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl<T: Debug> Hash for Print<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let print = self.0.1.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            let _ = write!(Into(&mut hasher), "{:?}", self.0.0);
            hasher.finish()
        });
        state.write_u64(*print);
    }
}
