//! Where a setting is: `settings.oauth.client_secret` names a member of nested objects.

use serde_json::Value;

/// The value at a path, if every step is an object that has it.
pub(crate) fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, step| value.as_object()?.get(step))
}

/// The same, to change it.
pub(crate) fn find_mut<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(document, |value, step| value.as_object_mut()?.get_mut(step))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_through_something_that_is_no_object_finds_nothing() {
        let document = json!({"settings": {"oauth": "text", "token": "t"}});
        assert_eq!(find(&document, "settings.token"), Some(&json!("t")));
        assert_eq!(find(&document, "settings.oauth.client_secret"), None);
        assert_eq!(find(&document, "elsewhere.token"), None);
    }
}
