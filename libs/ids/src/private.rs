//! Values that must not be printed: their `Debug` and `Display` are `***`.

use serde::{Deserialize, Serialize};

macro_rules! private {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name<T>(T);

        impl<T> $name<T> {
            /// Wraps a value.
            pub const fn new(value: T) -> Self {
                Self(value)
            }

            /// The value, for the one place that needs it.
            pub const fn expose(&self) -> &T {
                &self.0
            }

            /// The value, owned.
            pub fn into_inner(self) -> T {
                self.0
            }
        }

        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("***")
            }
        }

        impl<T> std::fmt::Display for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("***")
            }
        }

        impl<T> From<T> for $name<T> {
            fn from(value: T) -> Self {
                Self(value)
            }
        }
    };
}

private!(
    /// A credential.
    Secret
);
private!(
    /// Personal data.
    Pii
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_prints_its_value() {
        let shown = format!("{:?} {}", Secret::new("token"), Pii::new("a@example.com".to_owned()));
        assert_eq!(shown, "*** ***");
    }
}
