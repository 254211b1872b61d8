//! Recorded files, as they are or packed by gzip: told apart by how they begin, not by their names.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// How a file that gzip made begins (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens a file for reading what it holds.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    // One read may bring less, but not of a file: a shorter one is shorter than gzip's header.
    let is_packed = file.fill_buf()?.starts_with(&GZIP);
    Ok(if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<String> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), bytes)?;
        let mut text = String::new();
        open(file.path())?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn packed_and_plain_files_read_alike_and_a_cut_one_is_an_error() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(b"t_s,ctx_tokens,gen_tokens\n").unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(read(&packed).unwrap(), read(b"t_s,ctx_tokens,gen_tokens\n").unwrap());
        assert_eq!(read(b"").unwrap(), "");
        assert!(read(&packed[..packed.len() - 9]).is_err());
    }
}
