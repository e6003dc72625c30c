//! The few paths that exist here. None of them is a file of the machine: behind each is something in this program's memory.

/// Where Debian's corosync-qnetd has its certificates, and `pvecm` fetches them.
pub const NSSDB: &str = "/etc/corosync/qnetd/nssdb";
/// Where `pvecm` puts the request of a cluster.
pub const REQUEST: &str = "/tmp/qdevice-net-node.crq";
/// Corosync's own bound for a cluster's name.
const MAX_NAME: usize = 64;

/// What is behind a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A folder in which one of the files is. It can be asked about, and not listed.
    Folder,
    /// The authority's certificate, to read.
    Authority,
    /// The certificate of this cluster, to read once it is signed.
    Certificate(String),
    /// The request of a cluster, to write.
    Request,
    /// The keys that may log in while the pairing lasts, to read and to write.
    Keys,
}

impl Place {
    /// What is behind this path, if anything is. Paths aren't resolved: one with `..` in it leads nowhere.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/etc/corosync/qnetd/nssdb/qnetd-cacert.crt" => return Some(Self::Authority),
            REQUEST => return Some(Self::Request),
            "/root/.ssh/authorized_keys" | ".ssh/authorized_keys" => return Some(Self::Keys),
            "." | "/" => return Some(Self::Folder),
            _ => {}
        }
        let name = path.strip_prefix(NSSDB).and_then(|rest| rest.strip_prefix("/cluster-")?.strip_suffix(".crt"));
        if let Some(name) = name {
            return is_cluster(name).then(|| Self::Certificate(name.to_owned()));
        }
        match path.strip_suffix('/').unwrap_or(path) {
            NSSDB | "/tmp" | "/root" | "/root/.ssh" | ".ssh" => Some(Self::Folder),
            _ => None,
        }
    }
}

/// Whether a cluster can have this name and be set up here: Corosync allows more letters, which a shell would change on the way.
#[must_use]
pub fn is_cluster(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pvecm_and_ssh_copy_id_name_is_there() {
        for (path, place) in [
            ("/etc/corosync/qnetd/nssdb/qnetd-cacert.crt", Place::Authority),
            ("/etc/corosync/qnetd/nssdb/cluster-pve-1.crt", Place::Certificate("pve-1".into())),
            ("/tmp/qdevice-net-node.crq", Place::Request),
            ("/tmp", Place::Folder),
            ("/tmp/", Place::Folder),
            (".ssh/authorized_keys", Place::Keys),
            ("/root/.ssh/authorized_keys", Place::Keys),
        ] {
            assert_eq!(Place::of(path), Some(place), "{path}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for path in [
            "",
            "/etc/shadow",
            "/etc",
            "/tmp/../etc/shadow",
            "/tmp/../tmp/qdevice-net-node.crq",
            "/tmp//qdevice-net-node.crq",
            "tmp/qdevice-net-node.crq",
            "/tmp/qdevice-net-node.crq/",
            "/tmp/qdevice-net-node.crq2",
            "/tmp/x",
            "/etc/corosync/qnetd/nssdb/qdevice-ca.pem",
            "/etc/corosync/qnetd/nssdb/cluster-.crt",
            "/etc/corosync/qnetd/nssdb/cluster-../../../x.crt",
            "/etc/corosync/qnetd/nssdb/cluster-a/b.crt",
            "/etc/corosync/qnetd/nssdb/../nssdb/qnetd-cacert.crt",
            "/root/.ssh/id_rsa",
            "/root/.ssh/../.ssh/authorized_keys",
            "/state/server/qdevice-ca.pem",
            "/proc/self/environ",
            "..",
        ] {
            assert_eq!(Place::of(path), None, "{path}");
        }
    }

    #[test]
    fn clusters_have_names_that_no_shell_changes() {
        for name in ["pve", "PVE-2.home_x", &"a".repeat(64)] {
            assert!(is_cluster(name), "{name}");
        }
        for name in ["", "-n", ".", "..", "a b", "a/b", "$(id)", "a;b", "a'b", "ä", &"a".repeat(65)] {
            assert!(!is_cluster(name), "{name}");
        }
    }
}
