use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tiebreaker_member::{Ca, Identity, TokenBook, replace_private};
use tiebreaker_pipeline::name::ClusterName;
use tiebreaker_qnetd::Remembered;

use super::*;
use crate::config::Config;
use crate::layout::Layout;
use crate::qdevice::{Folder, HolderFile};
use crate::rejoin::Pending;
use crate::secrets::Vault;

const PASSPHRASE: &str = "correct horse battery";
const SECRET: &str = "open-sesame-1";

fn home() -> ClusterName {
    "home".parse().unwrap()
}

/// An appliance with a cluster, a secret, a file that the settings name, a Corosync cluster, and a past.
struct Appliance {
    folder: TempDir,
}

impl Appliance {
    fn new(more: &str) -> Self {
        let appliance = Self { folder: tempfile::tempdir().unwrap() };
        let layout = appliance.layout();
        fs::create_dir(layout.root()).unwrap();
        let ca = Ca::create(layout.root()).unwrap();
        let name = "pi".parse().unwrap();
        let text = Config::first(&name, &["127.0.0.1:8405".parse().unwrap()], &["pi.lan:8405".into()]).unwrap();
        fs::write(layout.config(), text + more).unwrap();
        layout.create_cluster(&ca, &home(), &name, &["pi.lan:8405".into()]).unwrap();
        Vault::with_credentials(layout.root(), None).put("home/node1/bmc", SECRET).unwrap();
        for past in ["drills.json", "qdevice-holders.cbor"] {
            fs::write(layout.root().join(past), "of that machine").unwrap();
        }
        fs::create_dir(layout.root().join("audit")).unwrap();
        let mut tokens = TokenBook::open(layout.root()).unwrap();
        let fingerprint = ca.certificate().fingerprint();
        tokens.create(fingerprint, &home(), tiebreaker_member::Role::Node, 1_800_000_000, 60).unwrap();
        appliance
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.folder.path().join("data"))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("pi.age")
    }

    fn save(&self) -> Contents {
        let contents = take_stopped(&self.layout()).unwrap();
        seal(&serde_json::to_vec(&contents).unwrap(), PASSPHRASE, &self.file(), true).unwrap();
        contents
    }

    fn elsewhere(&self) -> Layout {
        Layout::new(&self.folder.path().join("new"))
    }

    fn restore(&self, restoring: &Restoring) -> Result<Restored, BackupError> {
        restoring.restore(&open(&self.file(), PASSPHRASE)?, self.elsewhere().root())
    }
}

fn sworn() -> Restoring {
    Restoring { others_are_off: true, ..Restoring::default() }
}

fn names(folder: &Path) -> Vec<String> {
    names_below(folder, "")
}

/// All files, with their paths.
fn names_below(folder: &Path, prefix: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(names_below(&entry.path(), &format!("{name}/"))),
            false => all.push(name),
        }
    }
    all.sort();
    all
}

#[test]
fn row_51_what_is_restored_is_the_appliance_without_its_past() {
    let appliance = Appliance::new("");
    let (old, new) = (appliance.layout(), appliance.elsewhere());
    let number = Identity::load(&old.cluster(&home())).unwrap().cert().subject.raft_id.unwrap();
    let contents = appliance.save();
    assert_eq!(fs::metadata(appliance.file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(contents.manifest.clusters[0].number, number);
    assert_eq!(contents.manifest.secrets, ["home/node1/bmc"]);
    let restored = appliance.restore(&Restoring::default()).unwrap();
    assert_eq!(restored.settings_fault, None);
    let expected = [
        "ca.pem",
        "clusters/home/rejoin.json",
        "qdevice-holders.cbor",
        "secrets.age",
        "secrets.key",
        "secrets.lock",
        "server.toml",
    ];
    assert_eq!(names(new.root()), expected, "no certificate, store, vote, token, proof or audit log");
    let fingerprint = |layout: &Layout| Ca::load(layout.root()).unwrap().certificate().fingerprint();
    assert_eq!(fingerprint(&new), fingerprint(&old));
    assert_eq!(fs::read(new.config()).unwrap(), fs::read(old.config()).unwrap());
    let secret = Vault::with_credentials(new.root(), None).get("home/node1/bmc").unwrap();
    assert_eq!(&**secret, SECRET.as_bytes());
    let key = |layout: &Layout| fs::read(layout.root().join("secrets.key")).unwrap();
    assert_ne!(key(&new), key(&old), "sealed to a key of its own");
    let pending = Pending::read(&new, &home()).unwrap().unwrap();
    assert_eq!((pending.cluster.number, pending.others_are_off), (number, false));
    for name in expected {
        let mode = fs::metadata(new.root().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[test]
fn after_a_restore_anybody_may_hold_a_vote() {
    let appliance = Appliance::new("[qdevice]\n[qdevice.clusters.prod]\n");
    let pki = Folder::of_appliance(appliance.layout().root()).open_or_make().unwrap();
    appliance.save();
    appliance.restore(&sworn()).unwrap();
    let new = appliance.elsewhere();
    let remembered: Remembered = HolderFile::in_folder(new.root()).read().unwrap();
    assert!(!remembered.whole && remembered.holders.is_empty(), "{remembered:?}");
    assert_eq!(Folder::of_appliance(new.root()).open().unwrap().fingerprint(), pki.fingerprint());
}

#[test]
fn where_corosync_clusters_are_served_a_restore_wants_the_word_that_there_is_no_other() {
    let appliance = Appliance::new("[qdevice]\n[qdevice.clusters.prod]\n");
    appliance.save();
    let error = appliance.restore(&Restoring::default()).unwrap_err();
    assert!(matches!(error, BackupError::OthersMayBeOn), "{error}");
    assert!(!appliance.elsewhere().root().exists());
    appliance.restore(&sworn()).unwrap();
    assert!(Pending::read(&appliance.elsewhere(), &home()).unwrap().unwrap().others_are_off);
}

#[test]
fn an_authority_outside_of_the_data_folder_comes_back_there_and_replaces_no_other() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("nssdb");
    let text = format!("[qdevice]\nauthority = {path:?}\n[qdevice.clusters.prod]\n");
    let appliance = Appliance::new(&text);
    let pki = Folder::of_corosync(&path).open_or_make().unwrap();
    appliance.save();
    fs::remove_dir_all(&path).unwrap();
    let other = Folder::of_corosync(&path).open_or_make().unwrap();
    let error = appliance.restore(&sworn()).unwrap_err();
    assert!(matches!(error, BackupError::OtherAuthority { .. }), "{error}");
    assert_eq!(Folder::of_corosync(&path).open().unwrap().fingerprint(), other.fingerprint());
    fs::remove_dir_all(&path).unwrap();
    appliance.restore(&sworn()).unwrap();
    assert_eq!(Folder::of_corosync(&path).open().unwrap().fingerprint(), pki.fingerprint());
    assert!(!Folder::of_appliance(appliance.elsewhere().root()).has_authority());
}

#[test]
fn of_a_corosync_cluster_its_nodes_keys_come_back_and_no_fence_or_proof() {
    let appliance = Appliance::new("");
    let layout = appliance.layout();
    let book = serde_json::json!({
        "version": 1, "newest_s": 5, "docket": { "last": 3, "jobs": {} }, "clients": { "a": { "key": "one" } },
        "machines": { "a": "uuid" }, "proven": [{ "node": "a", "device": "plug", "address": "shelly 192.0.2.1" }],
    });
    let prod: ClusterName = "prod".parse().unwrap();
    replace_private(&layout.corosync(&prod).join("fences.json"), book.to_string().as_bytes()).unwrap();
    let kept = crate::door::for_backup(&layout, &prod).unwrap().unwrap();
    let new = appliance.elsewhere();
    crate::door::restore(&new, &prod, kept).unwrap();
    let text = fs::read_to_string(new.corosync(&prod).join("fences.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&found["clients"]["a"]["key"], &found["machines"]["a"]), (&"one".into(), &"uuid".into()));
    assert_eq!(found["proven"], serde_json::json!([]), "an outlet may be another machine's by now");
    assert!(found["docket"]["last"].as_u64().unwrap() > 1000, "numbers of fences that may have followed are skipped");
}

#[test]
fn files_that_the_settings_name_are_saved_or_told() {
    let device = |name: &str, file: &str| {
        format!(
            "[[clusters.home.devices]]\nnode = \"node1\"\nname = \"{name}\"\nkind = \"ipmi\"\naddress = \"127.0.0.1:623\"\n\
             user = \"oper\"\nsuite = 3\npassword_file = \"{file}\"\n"
        )
    };
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("bmc2");
    replace_private(&path, b"hunter2").unwrap();
    let appliance = Appliance::new(&device("bmc", "keys/bmc"));
    replace_private(&appliance.layout().root().join("keys/bmc"), SECRET.as_bytes()).unwrap();
    appliance.save();
    appliance.restore(&Restoring::default()).unwrap();
    assert_eq!(fs::read_to_string(appliance.elsewhere().root().join("keys/bmc")).unwrap(), SECRET);

    let other = device("bmc", path.to_str().unwrap());
    let appliance = Appliance::new(&other);
    assert_eq!(appliance.save().manifest.left_out, [path.to_str().unwrap()]);
    fs::remove_file(&path).unwrap();
    let fault = appliance.restore(&Restoring::default()).unwrap().settings_fault.unwrap();
    assert!(fault.contains("bmc2") && !fault.contains("hunter2"), "{fault}");
}

#[test]
fn each_thing_that_is_wrong_with_a_file_has_its_own_error_and_code() {
    let appliance = Appliance::new("");
    let contents = appliance.save();
    let file = appliance.file();
    let of = |result: Result<Contents, BackupError>| match result {
        Ok(_) => panic!("it was opened"),
        Err(error) => {
            assert!(!error.to_string().contains(SECRET) && !error.to_string().contains(PASSPHRASE), "{error}");
            error.exit_code()
        }
    };
    assert_eq!(of(open(&file, "correct horse batterz")), 3);
    let good = fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(good.len() / 12) {
        let mut bent = good.clone();
        bent[at] ^= 0x10;
        fs::write(&file, &bent).unwrap();
        assert!(matches!(of(open(&file, PASSPHRASE)), 3 | 4), "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert_eq!(of(open(&file, PASSPHRASE)), 4, "cut at {at}");
    }
    fs::write(&file, "[server]\nname = \"pi\"\n").unwrap();
    assert_eq!(of(open(&file, PASSPHRASE)), 4, "some other file");
    fs::copy(appliance.layout().root().join("secrets.age"), &file).unwrap();
    assert_eq!(of(open(&file, PASSPHRASE)), 4, "sealed to a key");
    let mut value = serde_json::to_value(&contents).unwrap();
    value["format"] = 2.into();
    value["more"] = "that this program can't know".into();
    seal(value.to_string().as_bytes(), PASSPHRASE, &file, true).unwrap();
    assert_eq!(of(open(&file, PASSPHRASE)), 5);
    value["format"] = 1.into();
    seal(value.to_string().as_bytes(), PASSPHRASE, &file, true).unwrap();
    assert_eq!(of(open(&file, PASSPHRASE)), 4);
}

#[test]
fn no_file_is_replaced_unasked_and_no_weak_passphrase_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pi.age");
    let short = seal(b"{}", "eleven char", &file, false).unwrap_err();
    assert!(matches!(short, BackupError::TooShort { length: 11, .. }), "{short}");
    assert!(!file.exists());
    seal(b"{}", PASSPHRASE, &file, false).unwrap();
    let first = fs::read(&file).unwrap();
    let error = seal(b"{}", PASSPHRASE, &file, false).unwrap_err();
    assert!(matches!(error, BackupError::Exists { .. }) && error.to_string().contains("--force"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), first);
    seal(b"{}", PASSPHRASE, &file, true).unwrap();
    assert_ne!(fs::read(&file).unwrap(), first);
    assert_eq!(names(folder.path()), ["pi.age"], "nothing is left behind");
}

#[test]
fn a_backup_is_restored_into_an_empty_folder_only() {
    let appliance = Appliance::new("");
    appliance.save();
    let new = appliance.elsewhere();
    fs::create_dir_all(new.root().join("lost+found")).unwrap();
    let foreign = new.root().join("notes");
    fs::write(&foreign, "mine").unwrap();
    let error = appliance.restore(&Restoring::default()).unwrap_err();
    assert!(matches!(&error, BackupError::NotEmpty { found, .. } if found == "notes"), "{error}");
    assert_eq!((error.exit_code(), names(new.root())), (6, vec!["notes".to_owned()]));
    fs::remove_file(foreign).unwrap();
    appliance.restore(&Restoring::default()).unwrap();
    let again = appliance.restore(&Restoring::default()).unwrap_err();
    assert!(matches!(again, BackupError::NotEmpty { .. }), "{again}");
}

#[test]
fn a_restore_that_is_cut_off_anywhere_has_made_nothing_or_everything() {
    let appliance = Appliance::new("");
    appliance.save();
    appliance.restore(&Restoring::default()).unwrap();
    let (whole, cut) = (appliance.elsewhere(), Layout::new(&appliance.folder.path().join("cut")));
    let entries: Vec<_> = fs::read_dir(whole.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let (last, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|name| name == "server.toml");
    let order: Vec<_> = rest.into_iter().chain(last).collect();
    let expected = names(whole.root());
    for moved in 0..=order.len() {
        let half = cut.root().join(".restoring");
        fs::create_dir_all(&half).unwrap();
        let copy = |from: &Path, to: &Path| {
            assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
        };
        for (place, name) in order.iter().enumerate() {
            copy(&whole.root().join(name), if place < moved { cut.root() } else { &half });
        }
        if moved < order.len() {
            let error = finish_or_refuse(&cut).unwrap_err();
            assert!(matches!(error, BackupError::Interrupted { .. }), "{moved}: {error}");
            let contents = open(&appliance.file(), PASSPHRASE).unwrap();
            Restoring::default().restore(&contents, cut.root()).unwrap();
        } else {
            finish_or_refuse(&cut).unwrap();
        }
        assert_eq!(names(cut.root()), expected, "{moved}");
        finish_or_refuse(&cut).unwrap();
        fs::remove_dir_all(cut.root()).unwrap();
    }
}

#[test]
fn nodes_that_the_backup_does_not_know_can_be_named_for_its_clusters_alone() {
    let appliance = Appliance::new("");
    appliance.save();
    let at = |name: &str| Restoring {
        asks: [(name.parse().unwrap(), vec!["n1.lan:8405".parse().unwrap()])].into(),
        ..Restoring::default()
    };
    let error = appliance.restore(&at("hone")).unwrap_err();
    assert!(error.to_string().contains("it has home"), "{error}");
    appliance.restore(&at("home")).unwrap();
    assert_eq!(Pending::read(&appliance.elsewhere(), &home()).unwrap().unwrap().asks, ["n1.lan:8405"]);
    // And a backup of a machine that is not back yet knows what its own backup told it.
    let contents = take_stopped(&appliance.elsewhere()).unwrap();
    assert_eq!(contents.manifest.clusters, open(&appliance.file(), PASSPHRASE).unwrap().manifest.clusters);
}
