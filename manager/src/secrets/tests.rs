use super::*;
use std::os::unix::fs::PermissionsExt;

fn bytes(value: &str) -> SecretBytes {
    SecretBytes::new(value.as_bytes().to_vec())
}

#[test]
fn the_first_start_makes_a_private_key_and_the_second_one_opens_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.key");
    let first = ManagerKey::open(&path, true, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let sealed = first.seal("secret:a", b"hunter2").unwrap();
    let second = ManagerKey::open(&path, true, Some(first.id())).unwrap();
    assert_eq!(second.unseal("secret:a", &sealed).unwrap().expose(), b"hunter2");
    assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn a_value_opens_only_under_its_own_name_and_undamaged() {
    let key = ManagerKey::from_bytes(&[7; 32]).unwrap();
    let mut sealed = key.seal("secret:a", bytes("x").expose()).unwrap();
    assert!(key.unseal("secret:b", &sealed).is_err());
    for at in 0..sealed.len() {
        sealed[at] ^= 1;
        assert!(key.unseal("secret:a", &sealed).is_err(), "byte {at}");
        sealed[at] ^= 1;
    }
    assert!(key.unseal("secret:a", &sealed[..5]).is_err());
    assert!(key.unseal("secret:a", &[]).is_err());
    assert!(ManagerKey::from_bytes(&[8; 32]).unwrap().unseal("secret:a", &sealed).is_err());
}

#[test]
fn a_missing_wrong_exposed_or_foreign_key_file_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manager.key");
    assert!(matches!(ManagerKey::open(&path, true, Some("abc")), Err(KeyError::Missing { .. })));
    assert!(matches!(ManagerKey::open(&path, false, None), Err(KeyError::File { .. })));
    ManagerKey::open(&path, true, None).unwrap();
    assert!(matches!(ManagerKey::open(&path, true, Some("abc")), Err(KeyError::Other { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(ManagerKey::open(&path, true, None), Err(KeyError::Exposed { .. })));
    assert!(ManagerKey::open(&path, false, None).is_ok());
    for text in ["", "delegate-manager-key-1 12", "delegate-manager-key-1 zz", "-----BEGIN", "\u{fffd}"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(ManagerKey::open(&path, false, None), Err(KeyError::Malformed { .. })), "{text}");
    }
}
