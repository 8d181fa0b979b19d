//! Which machine it is: the system UUID that firmware, BMC and operating system all report.

use std::fmt;

use uuid::Uuid;

/// UUIDs that whole product lines ship with, so that they say nothing about which machine it is.
/// The first is the default of AMI's firmware, the next two are met on boards that nobody programmed (inventory tools
/// such as osquery and GLPI list them); the others are fillers of test firmware.
const PLACEHOLDERS: [Uuid; 5] = [
    Uuid::from_u128(0x03000200_0400_0500_0006_000700080009),
    Uuid::from_u128(0x10000000_0000_8000_0040_000000000000),
    Uuid::from_u128(0x12345678_1234_5678_90ab_cddeefaabbcc),
    Uuid::from_u128(0x00010203_0405_0607_0809_0a0b0c0d0e0f),
    Uuid::from_u128(0xdeadbeef_dead_beef_dead_beefdeadbeef),
];

/// The SMBIOS system UUID of one machine.
///
/// Invariant: never a UUID that many machines share (nil, all ones, a known placeholder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemUuid(Uuid);

impl SystemUuid {
    /// Parses a UUID in any usual notation; `None` if it is none, or names no machine in particular.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = Uuid::try_parse(text.trim()).ok()?;
        let bytes = uuid.as_bytes();
        // Nil, all ones, and fillers such as fefefefe-…
        let uniform = bytes.iter().all(|byte| *byte == bytes[0]);
        let shared = encodings(uuid).iter().any(|form| PLACEHOLDERS.contains(form));
        (!uniform && !shared).then_some(Self(uuid))
    }

    /// Tells whether both name one machine, whichever byte order each was written in.
    ///
    /// Firmware, BMC and kernel disagree about it: as in RFC 4122, as in SMBIOS before 2.6 (the first three fields
    /// little-endian), or all 16 bytes reversed (ipmitool#25; Supermicro changed it with a BIOS version, go-hal#57).
    pub fn same_machine(&self, other: &Self) -> bool {
        let theirs = encodings(other.0);
        encodings(self.0).iter().any(|form| theirs.contains(form))
    }
}

impl fmt::Display for SystemUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The three byte orders a UUID is met in.
fn encodings(uuid: Uuid) -> [Uuid; 3] {
    let mut reversed = uuid.into_bytes();
    reversed.reverse();
    [uuid, Uuid::from_bytes(uuid.to_bytes_le()), Uuid::from_bytes(reversed)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &str = "33221100-5544-7766-8899-aabbccddeeff";
    const MIXED: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const REVERSED: &str = "ffeeddcc-bbaa-9988-6677-445500112233";

    fn uuid(text: &str) -> SystemUuid {
        SystemUuid::parse(text).expect("a usable UUID")
    }

    #[test]
    fn reads_the_usual_notations() {
        assert_eq!(uuid("33221100-5544-7766-8899-AABBCCDDEEFF").to_string(), RFC);
        assert_eq!(uuid("3322110055447766 8899aabbccddeeff".replace(' ', "").as_str()).to_string(), RFC);
        assert_eq!(uuid(" {33221100-5544-7766-8899-aabbccddeeff}\n").to_string(), RFC);
    }

    #[test]
    fn what_names_no_machine_is_no_identity() {
        for text in [
            "",
            "Not Settable",
            "123456",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "fefefefe-fefe-fefe-fefe-fefefefefefe",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "09000800-0700-0600-0005-000400020003",
            "10000000-0000-8000-0040-000000000000",
            "12345678-1234-5678-90AB-CDDEEFAABBCC",
            "78563412-3412-7856-90ab-cddeefaabbcc",
            "03020100-0504-0706-0809-0a0b0c0d0e0f",
        ] {
            assert_eq!(SystemUuid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn one_machine_in_three_byte_orders() {
        for (one, other) in [(RFC, RFC), (RFC, MIXED), (RFC, REVERSED), (MIXED, REVERSED)] {
            assert!(uuid(one).same_machine(&uuid(other)), "{one} {other}");
            assert!(uuid(other).same_machine(&uuid(one)), "{other} {one}");
        }
    }

    #[test]
    fn another_machine_is_another_machine() {
        let neighbour = uuid("33221100-5544-7766-8899-aabbccddeefe");
        assert!(!uuid(RFC).same_machine(&neighbour));
    }
}
