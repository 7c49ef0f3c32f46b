//! Single pages of a SQLCipher file and its write-ahead log, each checked by its own authentication code. SQLite gives a file
//! up at the first bad page; this reads all the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aes::Aes256;
use aes::cipher::{Array, BlockModeDecrypt as _, InnerIvInit as _, KeyInit as _};
use ring::{hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::store::key::DataKey;
use crate::store::{StoreError, db};

/// Of each page 16 octets are the vector and 64 the code: SQLCipher 4's defaults, which `db.rs` leaves alone.
pub const PAGE: usize = db::PAGE as usize;
pub const USABLE: usize = PAGE - VECTOR - CODE;
const VECTOR: usize = 16;
const CODE: usize = 64;
/// The file begins with the salt of the authentication key, in the place of SQLite's own header string.
const SALT: usize = 16;
const SALT_MASK: u8 = 0x3A;
const ITERATIONS: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");

const WAL_HEADER: usize = 32;
const WAL_FRAME: usize = 24 + PAGE;

pub type Page = Zeroizing<Vec<u8>>;

pub struct Pages {
    file: File,
    wal: Option<File>,
    /// Where the committed versions of a page are in the write-ahead log, oldest first.
    newer: BTreeMap<u32, Vec<u64>>,
    cipher: Cipher,
    count: u32,
    /// Pages of the write-ahead log are missing or bad: what is read may be older than what was committed.
    pub stale: bool,
}

struct Cipher {
    aes: Aes256,
    code: hmac::Key,
}

impl Pages {
    /// Opens what is there of `path` and its write-ahead log. `None`: no page of it belongs to this key.
    pub fn open(path: &Path, key: &DataKey) -> Result<Option<Self>, StoreError> {
        let file = File::open(path).map_err(StoreError::io(path))?;
        let length = file.metadata().map_err(StoreError::io(path))?.len();
        let wal = File::open(beside(path, "-wal")).ok();
        let frames = wal.as_ref().map(Frames::read).unwrap_or_default();
        let mut count = u32::try_from(length.div_ceil(PAGE as u64)).unwrap_or(u32::MAX);
        count = count.max(
            frames.committed().map(|frame| frame.page).filter(|page| *page <= count + frames.all.len() as u32).max().unwrap_or(0),
        );
        let mut salts = vec![salt_for(key)];
        salts.extend(salt_at(&file, 0));
        for frame in frames.all.iter().filter(|frame| frame.page == 1) {
            salts.extend(wal.as_ref().and_then(|wal| salt_at(wal, frame.at)));
        }
        salts.dedup();
        for salt in salts {
            let mut pages = Self {
                file: file.try_clone().map_err(StoreError::io(path))?,
                wal: wal.as_ref().map(File::try_clone).transpose().map_err(StoreError::io(path))?,
                newer: BTreeMap::new(),
                cipher: Cipher::new(key, &salt),
                count,
                stale: frames.broken,
            };
            pages.take_frames(&frames);
            if (1..=count).any(|page| pages.authentic(page)) {
                return Ok(Some(pages));
            }
        }
        Ok(None)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// The newest readable version of a page, decrypted.
    pub fn read(&self, page: u32) -> Option<Page> {
        let mut octets = self.raw(page)?;
        let from = if page == 1 { SALT } else { 0 };
        let vector = octets[USABLE..USABLE + VECTOR].try_into().expect("a vector's length");
        self.cipher.decrypt(vector, &mut octets[from..USABLE]);
        octets.truncate(USABLE);
        Some(octets)
    }

    /// Whether the page can be read, without decrypting it.
    pub fn authentic(&self, page: u32) -> bool {
        self.raw(page).is_some()
    }

    fn raw(&self, page: u32) -> Option<Page> {
        let newer = self.newer.get(&page).into_iter().flatten().rev();
        let from_wal = newer.filter_map(|at| read_at(self.wal.as_ref()?, *at, PAGE));
        let from_file = std::iter::once_with(|| read_at(&self.file, (u64::from(page) - 1) * PAGE as u64, PAGE)).flatten();
        from_wal.chain(from_file).find(|octets| self.cipher.authentic(page, octets))
    }

    fn take_frames(&mut self, frames: &Frames) {
        for frame in frames.committed() {
            let octets = self.wal.as_ref().and_then(|wal| read_at(wal, frame.at, PAGE));
            if octets.is_some_and(|octets| self.cipher.authentic(frame.page, &octets)) {
                self.newer.entry(frame.page).or_default().push(frame.at);
            } else {
                self.stale = true;
            }
        }
    }
}

impl Cipher {
    fn new(key: &DataKey, salt: &[u8; SALT]) -> Self {
        let mut code = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt.map(|octet| octet ^ SALT_MASK), &key[..], &mut code[..]);
        Self { aes: Aes256::new(&Array(**key)), code: hmac::Key::new(hmac::HMAC_SHA512, &code[..]) }
    }

    fn authentic(&self, page: u32, octets: &[u8]) -> bool {
        let from = if page == 1 { SALT } else { 0 };
        let mut context = hmac::Context::with_key(&self.code);
        context.update(&octets[from..USABLE + VECTOR]);
        context.update(&page.to_le_bytes());
        context.sign().as_ref() == &octets[USABLE + VECTOR..]
    }

    /// Whole blocks, in place.
    fn decrypt(&self, vector: [u8; VECTOR], octets: &mut [u8]) {
        let (blocks, rest) = Array::slice_as_chunks_mut(octets);
        debug_assert!(rest.is_empty(), "a page is whole blocks");
        cbc::Decryptor::inner_iv_init(self.aes.clone(), &Array(vector)).decrypt_blocks(blocks);
    }
}

/// The salt of a new file, following from its key: then a damaged first page takes no other page with it.
pub fn salt_for(key: &DataKey) -> [u8; SALT] {
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key[..]), b"bedrail page salt");
    code.as_ref()[..SALT].try_into().expect("the code is longer than a salt")
}

/// Whether durable commits lie in the write-ahead log behind a place that SQLite does not read past. A power cut leaves at
/// most one commit there, the one that was never reported.
pub fn wal_is_damaged(path: &Path) -> bool {
    let Ok(wal) = File::open(beside(path, "-wal")) else { return false };
    let frames = Frames::read(&wal);
    if !frames.header_reads {
        // A power cut can tear the header only while a new round begins, when all of the old one is in the database.
        let Ok(file) = File::open(path) else { return false };
        let newest: BTreeMap<u32, u64> = frames.committed().map(|frame| (frame.page, frame.at)).collect();
        return newest.iter().any(|(page, at)| {
            let in_file = u64::from(*page).checked_sub(1).and_then(|before| read_at(&file, before * PAGE as u64, PAGE));
            read_at(&wal, *at, PAGE) != in_file
        });
    }
    let behind = frames.all.iter().skip(frames.sound);
    behind.filter(|frame| frame.commit).count() >= 2
}

#[derive(Default)]
struct Frames {
    all: Vec<Frame>,
    /// How many of them, from the first, SQLite itself would read.
    sound: usize,
    header_reads: bool,
    /// A frame's own header, or that of the file, is bad.
    broken: bool,
}

struct Frame {
    page: u32,
    commit: bool,
    at: u64,
}

impl Frames {
    /// The frames of the present round of the log; those of rounds before it carry other salts.
    fn read(wal: &File) -> Self {
        let mut frames = Self::default();
        let Some(header) = read_at(wal, 0, WAL_HEADER) else { return frames };
        let big = header[3] & 1 == 1;
        let mut sum = checksum(big, (0, 0), &header[..24]);
        frames.header_reads = header[..3] == [0x37, 0x7F, 0x06] && sum == (word(&header[24..]), word(&header[28..]));
        frames.broken = !frames.header_reads;
        let mut salts: Option<[u8; 8]> = frames.header_reads.then(|| header[16..24].try_into().expect("eight octets"));
        let (mut at, mut sound, mut strangers) = (WAL_HEADER as u64, frames.header_reads, 0usize);
        while let Some(head) = read_at(wal, at, 24) {
            let salt: [u8; 8] = head[8..16].try_into().expect("eight octets");
            let ours = *salts.get_or_insert(salt) == salt;
            if ours {
                // A frame of another round between two of ours: its header is bad.
                frames.broken |= strangers > 0;
                let Some(octets) = read_at(wal, at + 24, PAGE) else { break };
                sum = checksum(big, checksum(big, sum, &head[..8]), &octets);
                sound &= strangers == 0 && sum == (word(&head[16..]), word(&head[20..]));
                frames.all.push(Frame { page: word(&head), commit: word(&head[4..]) != 0, at: at + 24 });
                frames.sound += usize::from(sound);
            } else {
                strangers += 1;
            }
            at += WAL_FRAME as u64;
        }
        frames
    }

    fn committed(&self) -> impl Iterator<Item = &Frame> {
        let end = self.all.iter().rposition(|frame| frame.commit).map_or(0, |last| last + 1);
        self.all[..end].iter().filter(|frame| frame.page > 0)
    }
}

/// SQLite's running sum over pairs of words.
fn checksum(big: bool, (mut a, mut b): (u32, u32), octets: &[u8]) -> (u32, u32) {
    let read = |four: &[u8]| if big { word(four) } else { word(four).swap_bytes() };
    for pair in octets.chunks_exact(8) {
        a = a.wrapping_add(read(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(read(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}

pub fn word(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().expect("four octets"))
}

/// A sector that can't be read and an end of file are the same here: those octets are not there.
fn read_at(file: &File, at: u64, length: usize) -> Option<Page> {
    let mut octets = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut octets, at).ok()?;
    Some(octets)
}

fn salt_at(file: &File, at: u64) -> Option<[u8; SALT]> {
    read_at(file, at, SALT)?.as_slice().try_into().ok()
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Pages of a walk that were seen, so that a loop of damaged pointers ends.
pub type Visited = BTreeSet<u32>;

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(words: [u128; N]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_page_is_decrypted_as_the_standard_says() {
        // NIST SP 800-38A, F.2.6: CBC-AES256.Decrypt.
        let key = octets([0x603deb1015ca71be2b73aef0857d7781, 0x1f352c073b6108d72d9810a30914dff4]);
        let cipher = Cipher::new(&DataKey::new(key.try_into().expect("32 octets")), &[0; SALT]);
        let mut blocks = octets([
            0xf58c4c04d6e5f1ba779eabfb5f7bfbd6,
            0x9cfc4e967edb808d679f777bc6702c7d,
            0x39f23369a9d9bacfa530e26304231461,
            0xb2eb05e2c39be9fcda6c19078c6a9d1b,
        ]);
        cipher.decrypt(std::array::from_fn(|i| i as u8), &mut blocks);
        let plain = octets([
            0x6bc1bee22e409f96e93d7e117393172a,
            0xae2d8a571e03ac9c9eb76fac45af8e51,
            0x30c81c46a35ce411e5fbc1191a0a52ef,
            0xf69f2445df4f9b17ad2b417be66c3710,
        ]);
        assert_eq!(blocks, plain);
    }
}
