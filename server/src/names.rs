//! Names of namespaces that an operator may choose. The public API takes more; these can be typed and quoted anywhere.

/// Longest name.
const LENGTH_MAX: usize = 200;

/// Checks a name for a new namespace.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        return Err("namespace: the name is empty".to_string());
    }
    if name.len() > LENGTH_MAX {
        return Err(format!("namespace: the name is longer than {LENGTH_MAX} bytes"));
    }
    if !name.chars().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!(
            "namespace: {name:?} must begin with a letter or digit and hold letters, digits, '-', '_' and '.' only"
        ));
    }
    if name.starts_with("temporal-") {
        return Err(format!(
            "namespace: names that begin with \"temporal-\" are the server's own, {name:?} is one"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_typed_are_taken() {
        for name in ["default", "orders.eu-1", "0x_y"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn others_are_refused_with_the_field() {
        for name in ["", "a b", "-a", "ä", "temporal-system", &"x".repeat(201)] {
            assert!(check(name).unwrap_err().starts_with("namespace: "), "{name}");
        }
    }
}
