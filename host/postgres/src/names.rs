//! Lists of publishers' names in one column: JSON, or NULL for an empty list.

pub(super) fn to_json(names: &[impl AsRef<str>]) -> Option<String> {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { None } else { serde_json::to_string(&names).ok() }
}

/// Anything else that somebody has written there counts as no names.
pub(super) fn from_json(json: Option<&str>) -> Vec<String> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}
