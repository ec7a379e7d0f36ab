//! What bodies may say at all, before anything is looked up, and what they mean to `app`. Pure. Every wrong field is named at once, by its JSON
//! pointer.

pub mod host;
pub mod image;
