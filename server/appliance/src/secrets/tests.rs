use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn vault() -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::with_credentials(dir.path(), None);
    (dir, vault)
}

#[test]
fn what_is_kept_comes_back_and_lies_encrypted_with_mode_0600() {
    let (dir, vault) = vault();
    assert!(matches!(vault.get("home/node1/bmc"), Err(SecretsError::Unknown { .. })));
    assert_eq!(vault.put("home/node1/bmc", "correct horse").unwrap(), KeyPlace::File);
    vault.put("home/node2/bmc", "other").unwrap();
    vault.put("home/node1/bmc", "battery staple").unwrap();
    assert_eq!(vault.get("home/node1/bmc").unwrap().as_slice(), b"battery staple");
    for file in ["secrets.age", "secrets.key"] {
        let path = dir.path().join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"battery"), "{file}");
    }
    let status = vault.status().unwrap();
    assert_eq!(status.names, ["home/node1/bmc", "home/node2/bmc"]);
    assert!(!format!("{status:?}").contains("staple"));
}

#[test]
fn a_file_that_others_may_read_is_refused_with_the_way_out() {
    let (dir, vault) = vault();
    vault.put("x", "secret").unwrap();
    let path = dir.path().join("secrets.age");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(vault.get("x").unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn the_credential_of_the_service_manager_is_the_key_where_there_is_one() {
    let (dir, beside) = vault();
    beside.put("x", "before").unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    replace_private(&credentials.join(CREDENTIAL), key::new_key().as_bytes()).unwrap();
    let with = Vault::with_credentials(dir.path(), Some(&credentials));
    assert_eq!(with.get("x").unwrap().as_slice(), b"before", "the former key still opens it");
    assert_eq!(with.put("y", "after").unwrap(), KeyPlace::Credential);
    // From now on the key file opens nothing.
    assert!(matches!(beside.get("x"), Err(SecretsError::Decrypt { .. })));
    std::fs::remove_file(dir.path().join("secrets.key")).unwrap();
    assert_eq!(with.get("x").unwrap().as_slice(), b"before");
    let error = beside.get("x").unwrap_err().to_string();
    assert!(error.contains(CREDENTIAL) && error.contains("secrets restore"), "{error}");
}

#[test]
fn row_53_the_recovery_key_alone_restores_everything_on_another_appliance() {
    let (dir, lost) = vault();
    let recovery = dir.path().join("recovery.key");
    replace_private(&recovery, key::new_key().as_bytes()).unwrap();
    let public = key::read_identities(&recovery).unwrap()[0].to_public().to_string();
    lost.put("home/node1/bmc", "before").unwrap();
    lost.seal_to(&public).unwrap();
    lost.put("home/node2/bmc", "later").unwrap();
    assert!(matches!(lost.seal_to("age1nonsense"), Err(SecretsError::NoRecipient { .. })));

    let (_other, new) = vault();
    let copy = dir.path().join("secrets.age");
    let stranger = dir.path().join("stranger.key");
    replace_private(&stranger, key::new_key().as_bytes()).unwrap();
    assert!(matches!(new.restore(&copy, &stranger), Err(SecretsError::Decrypt { .. })));
    new.restore(&copy, &recovery).unwrap();
    assert_eq!(new.get("home/node1/bmc").unwrap().as_slice(), b"before");
    assert_eq!(new.get("home/node2/bmc").unwrap().as_slice(), b"later");
    assert_eq!(new.status().unwrap().recovery, [public], "it stays sealed to the recovery key");
    assert!(matches!(new.restore(&copy, &recovery), Err(SecretsError::Present { .. })));
}

#[test]
fn damage_is_named_and_nothing_of_the_content_is_repeated() {
    let (dir, vault) = vault();
    vault.put("x", "hunter2").unwrap();
    let path = dir.path().join("secrets.age");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    replace_private(&path, &bytes).unwrap();
    assert!(vault.get("x").is_err());
    replace_private(&path, b"nothing of age").unwrap();
    let error = vault.get("x").unwrap_err();
    assert!(matches!(error, SecretsError::Decrypt { .. }), "{error}");
    // Sealed properly, but no document of ours.
    let (own, _) = vault.keys().recipient().unwrap();
    replace_private(&path, &age::encrypt(&own, b"{\"version\": 1, \"secrets\": \"hunter2\"}").unwrap()).unwrap();
    let error = vault.get("x").unwrap_err();
    assert!(matches!(error, SecretsError::Damaged { .. }) && !format!("{error:?}").contains("hunter2"), "{error:?}");
}
