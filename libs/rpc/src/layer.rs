//! What each call passes through. Composed once in `server`, outermost first: [`trace`], [`observe`], [`shed`],
//! [`deadline`], [`panics`].

pub(crate) mod deadline;
pub(crate) mod observe;
pub(crate) mod panics;
pub(crate) mod shed;
pub(crate) mod trace;
