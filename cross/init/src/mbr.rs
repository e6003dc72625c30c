//! The first sector of the card: which disk is ours.

/// Length of a sector.
pub const SECTOR: usize = 512;
const SIGNATURE: usize = 440;
const MAGIC: usize = 510;

/// The signature of a disk by its first sector, if that has a partition table.
#[must_use]
pub fn signature(sector: &[u8]) -> Option<u32> {
    (sector.get(MAGIC..SECTOR)? == [0x55, 0xaa]).then_some(())?;
    Some(u32::from_le_bytes(sector.get(SIGNATURE..SIGNATURE + 4)?.try_into().ok()?))
}

/// The name of a partition's device. Names that end in a digit get a `p` before the number.
#[must_use]
pub fn partition(disk: &str, number: u8) -> String {
    let between = if disk.ends_with(|letter: char| letter.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{between}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_by_its_signature() {
        let mut sector = [0; SECTOR];
        sector[SIGNATURE..SIGNATURE + 4].copy_from_slice(&[0x6b, 0x72, 0x62, 0x74]);
        assert_eq!(signature(&sector), None, "there is no partition table");
        sector[MAGIC..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(signature(&sector), Some(0x7462_726b));
        assert_eq!(signature(&sector[..100]), None);
    }

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        assert_eq!(partition("mmcblk0", 4), "mmcblk0p4");
        assert_eq!(partition("vda", 1), "vda1");
    }
}
