//! The public test vectors as inputs of the target `decoder`.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// What the encrypted vectors are encrypted with.
pub const KEY: [u8; 16] = [0x23, 0x1D, 0x39, 0xC1, 0xD7, 0xCC, 0x1A, 0xB1, 0xAE, 0xE2, 0x24, 0xCD, 0x09, 0x6D, 0xB9, 0x32];
pub const MAC: [u8; 6] = [0x54, 0x48, 0xE6, 0x8F, 0x80, 0xA5];

/// Writes each vector to a file of `folder`: the place of its decoder in `names`, what it is told, the octets.
pub fn write(folder: &Path, names: &[&str], [crc, key, segments]: [u8; 3]) {
    fs::create_dir_all(folder).expect("the folder of seeds");
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    for file in fs::read_dir(vectors).expect("the vectors").map(|entry| entry.expect("an entry").path()) {
        let text = fs::read_to_string(&file).expect("a file of vectors");
        let vectors: Vec<Value> = serde_json::from_str(&text).expect("a list of vectors");
        for vector in vectors {
            let name = vector["characteristic"].as_str().expect("a name");
            let pick = names.iter().position(|known| *known == name).expect("a vector is of a decoder");
            let has = |field: &str| vector["context"].get(field).is_some();
            let told = if has("e2e_crc") { crc } else { 0 } | if has("key") { key } else { 0 };
            let mut seed = vec![u8::try_from(pick).expect("fewer than 256 decoders")];
            match &vector["hex"] {
                Value::String(hex) => {
                    seed.push(told);
                    seed.extend(octets(hex));
                }
                Value::Array(pieces) => {
                    seed.push(told | segments);
                    for piece in pieces {
                        let piece = octets(piece.as_str().expect("hexadecimal"));
                        seed.push(u8::try_from(piece.len()).expect("a segment is short"));
                        seed.extend(piece);
                    }
                }
                other => panic!("no octets: {other}"),
            }
            fs::write(folder.join(vector["id"].as_str().expect("an id")), seed).expect("a seed");
        }
    }
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect()
}
