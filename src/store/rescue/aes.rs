//! AES-256 in CBC, decryption only: what it takes to read a single page of a database that SQLite no longer opens.
//!
//! Used while a damaged file is salvaged and nowhere else. Its tables are fast and not of constant time; nobody is there to
//! time a salvage, and each page was authenticated before it gets here.

use zeroize::Zeroize as _;

static SBOX: [u8; 256] = sbox();
static INVERSE: [u8; 256] = inverse();
/// One column of the inverse cipher: substitution and mixing of one octet.
static MIX: [u32; 256] = mix();

const ROUNDS: usize = 14;

pub struct Aes256 {
    keys: [u32; 4 * (ROUNDS + 1)],
}

impl Drop for Aes256 {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl Aes256 {
    pub fn new(key: &[u8; 32]) -> Self {
        let mut words = [0u32; 4 * (ROUNDS + 1)];
        for (word, octets) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_be_bytes(octets.try_into().expect("four octets"));
        }
        let mut constant = 1u8;
        for i in 8..words.len() {
            let mut word = words[i - 1];
            if i % 8 == 0 {
                word = substitute(word.rotate_left(8)) ^ (u32::from(constant) << 24);
                constant = double(constant);
            } else if i % 8 == 4 {
                word = substitute(word);
            }
            words[i] = words[i - 8] ^ word;
        }
        // The inverse cipher takes the round keys from behind, all but the outer ones mixed.
        let mut keys = [0; 4 * (ROUNDS + 1)];
        for round in 0..=ROUNDS {
            for column in 0..4 {
                let word = words[4 * (ROUNDS - round) + column];
                keys[4 * round + column] = if round == 0 || round == ROUNDS { word } else { unmix(word) };
            }
        }
        words.zeroize();
        Self { keys }
    }

    /// Decrypts whole blocks in place.
    pub fn decrypt_cbc(&self, iv: [u8; 16], octets: &mut [u8]) {
        let mut previous = iv;
        for block in octets.chunks_exact_mut(16) {
            let cipher: [u8; 16] = (&*block).try_into().expect("sixteen octets");
            let plain = self.block(&cipher);
            for (out, (plain, mask)) in block.iter_mut().zip(plain.iter().zip(previous)) {
                *out = plain ^ mask;
            }
            previous = cipher;
        }
    }

    fn block(&self, cipher: &[u8; 16]) -> [u8; 16] {
        let mut state = [0u32; 4];
        for (column, word) in state.iter_mut().enumerate() {
            *word = u32::from_be_bytes(cipher[4 * column..4 * column + 4].try_into().expect("four octets")) ^ self.keys[column];
        }
        for round in 1..ROUNDS {
            let mut next = [0u32; 4];
            for (column, word) in next.iter_mut().enumerate() {
                *word = MIX[octet(state[column], 0)]
                    ^ MIX[octet(state[(column + 3) % 4], 1)].rotate_right(8)
                    ^ MIX[octet(state[(column + 2) % 4], 2)].rotate_right(16)
                    ^ MIX[octet(state[(column + 1) % 4], 3)].rotate_right(24)
                    ^ self.keys[4 * round + column];
            }
            state = next;
        }
        let mut plain = [0; 16];
        for column in 0..4 {
            let word = u32::from_be_bytes([
                INVERSE[octet(state[column], 0)],
                INVERSE[octet(state[(column + 3) % 4], 1)],
                INVERSE[octet(state[(column + 2) % 4], 2)],
                INVERSE[octet(state[(column + 1) % 4], 3)],
            ]);
            plain[4 * column..4 * column + 4].copy_from_slice(&(word ^ self.keys[4 * ROUNDS + column]).to_be_bytes());
        }
        plain
    }
}

const fn octet(word: u32, place: u32) -> usize {
    ((word >> (24 - 8 * place)) & 0xFF) as usize
}

fn substitute(word: u32) -> u32 {
    u32::from_be_bytes(word.to_be_bytes().map(|octet| SBOX[usize::from(octet)]))
}

fn unmix(word: u32) -> u32 {
    let column = |place: u32| MIX[usize::from(SBOX[octet(word, place)])].rotate_right(8 * place);
    column(0) ^ column(1) ^ column(2) ^ column(3)
}

const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1B }
}

const fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// Walks the field by its generator 3 and, beside it, by 3's inverse.
const fn sbox() -> [u8; 256] {
    let mut table = [0; 256];
    let (mut p, mut q) = (1u8, 1u8);
    loop {
        p = times(p, 3);
        q = times(q, 0xF6);
        table[p as usize] = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
}

const fn inverse() -> [u8; 256] {
    let (forward, mut table, mut i) = (sbox(), [0; 256], 0);
    while i < 256 {
        table[forward[i] as usize] = i as u8;
        i += 1;
    }
    table
}

const fn mix() -> [u32; 256] {
    let (back, mut table, mut i) = (inverse(), [0; 256], 0);
    while i < 256 {
        let s = back[i];
        table[i] = u32::from_be_bytes([times(s, 14), times(s, 9), times(s, 13), times(s, 11)]);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_decrypts_as_the_standard_says() {
        // FIPS 197, appendix C.3.
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let cipher = 0x8ea2b7ca516745bfeafc49904b496089_u128.to_be_bytes();
        assert_eq!(Aes256::new(&key).block(&cipher), 0x00112233445566778899aabbccddeeff_u128.to_be_bytes());
    }

    #[test]
    fn blocks_are_chained() {
        // NIST SP 800-38A, F.2.6, the first two blocks.
        let key = [
            0x60, 0x3d, 0xeb, 0x10, 0x15, 0xca, 0x71, 0xbe, 0x2b, 0x73, 0xae, 0xf0, 0x85, 0x7d, 0x77, 0x81, 0x1f, 0x35, 0x2c,
            0x07, 0x3b, 0x61, 0x08, 0xd7, 0x2d, 0x98, 0x10, 0xa3, 0x09, 0x14, 0xdf, 0xf4,
        ];
        let mut octets = [0; 32];
        octets[..16].copy_from_slice(&0xf58c4c04d6e5f1ba779eabfb5f7bfbd6_u128.to_be_bytes());
        octets[16..].copy_from_slice(&0x9cfc4e967edb808d679f777bc6702c7d_u128.to_be_bytes());
        Aes256::new(&key).decrypt_cbc(std::array::from_fn(|i| i as u8), &mut octets);
        assert_eq!(octets[..16], 0x6bc1bee22e409f96e93d7e117393172a_u128.to_be_bytes());
        assert_eq!(octets[16..], 0xae2d8a571e03ac9c9eb76fac45af8e51_u128.to_be_bytes());
    }
}
