//! The checksum of RocksDB's log records: CRC-32C, stored in a rotated form.

/// The checksum of some bytes as a record's header stores it.
pub(super) fn stored(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_polynomial_comes_out() {
        // 0xe3069283 is the published CRC-32C of these nine digits.
        assert_eq!(stored(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
