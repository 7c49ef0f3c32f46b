//! A disk as a power cut sees it: what was synced stands, and of everything else any part may have reached it. Replays a
//! trace of `tests/shim/recorder.c`.

use std::collections::{BTreeMap, BTreeSet};

/// What a disk writes in one piece: nothing smaller is torn.
const SECTOR: usize = 512;
const PAGE: usize = 4_096;
/// Of many un-synced writes this many are dropped, and kept, each alone; the random subsets speak for the rest.
const ALONE: usize = 5;
const RANDOM_SUBSETS: usize = 3;
/// Numbers of files that were there before the trace begins; a trace counts from 1.
const GIVEN: u32 = 1 << 31;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Create {
        file: u32,
        name: String,
    },
    Write {
        file: u32,
        at: usize,
        data: Vec<u8>,
    },
    Resize {
        file: u32,
        length: usize,
    },
    Sync {
        file: u32,
    },
    SyncDirectory,
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Promise(String),
    /// An fsync that failed: what it was for is dropped from memory and is not on the disk.
    FailedSync {
        file: u32,
    },
    FailedSyncDirectory,
    Mapped {
        file: u32,
    },
}

pub fn parse(mut trace: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((head, rest)) = trace.split_at_checked(17) {
        let file = u32::from_le_bytes(head[1..5].try_into().unwrap());
        let at = u64::from_le_bytes(head[5..13].try_into().unwrap()) as usize;
        let length = u32::from_le_bytes(head[13..17].try_into().unwrap()) as usize;
        let data = rest[..length].to_vec();
        trace = &rest[length..];
        let text = || String::from_utf8(data.clone()).expect("names and promises are text");
        events.push(match head[0] {
            b'C' => Event::Create { file, name: text() },
            b'W' => Event::Write { file, at, data },
            b'T' => Event::Resize { file, length: at },
            b'S' => Event::Sync { file },
            b'D' => Event::SyncDirectory,
            b'U' => Event::Unlink { name: text() },
            b'R' => {
                let both = text();
                let (from, to) = both.split_once('\0').expect("two names");
                Event::Rename { from: from.into(), to: to.into() }
            }
            b'P' => Event::Promise(text()),
            b'E' => Event::FailedSync { file },
            b'F' => Event::FailedSyncDirectory,
            b'M' => Event::Mapped { file },
            kind => panic!("a trace holds no event {kind}"),
        });
    }
    assert!(trace.is_empty(), "the trace ends in the middle of an event");
    events
}

/// The same trace as `synchronous=NORMAL` would have left it: a commit's frames are written to the write-ahead log and not
/// synced. The log's header, a checkpoint's own syncs and the database's stay.
pub fn without_commit_syncs(events: &[Event]) -> Vec<Event> {
    let (mut logs, mut unsynced_frames) = (BTreeSet::new(), BTreeSet::new());
    let mut keep = |event: &&Event| match event {
        Event::Create { file, name } if name.ends_with("-wal") => {
            logs.insert(*file);
            true
        }
        Event::Write { file, at, .. } if *at > 0 && logs.contains(file) => {
            unsynced_frames.insert(*file);
            true
        }
        Event::Sync { file } => !unsynced_frames.remove(file),
        _ => true,
    };
    events.iter().filter(|event| keep(event)).cloned().collect()
}

/// Whether the event at `at`, a sync that failed, was a commit's: of a write-ahead log with frames that no sync covers yet.
pub fn failed_a_commit(events: &[Event], at: usize) -> bool {
    let Event::FailedSync { file: failed } = events[at] else { return false };
    let is_log = |event: &Event| matches!(event, Event::Create { file, name } if *file == failed && name.ends_with("-wal"));
    let since_sync = events[..at].iter().rev().take_while(|event| **event != Event::Sync { file: failed });
    let frames = since_sync.filter(|event| matches!(event, Event::Write { file, at, .. } if *file == failed && *at > 0)).count();
    frames > 0 && events[..at].iter().any(is_log)
}

pub type Image = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub struct Disk {
    names: BTreeMap<String, u32>,
    unsynced_names: Vec<Event>,
    files: BTreeMap<u32, File>,
    /// Files that were there before, by the number the trace gives them.
    given: BTreeMap<u32, u32>,
}

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// Writes and resizes since the last sync, in order.
    unsynced: Vec<Event>,
}

impl Disk {
    /// A disk that holds files already, synced under their names.
    pub fn holding(files: &Image) -> Self {
        let mut disk = Self::default();
        for (number, (name, content)) in (GIVEN..).zip(files) {
            disk.names.insert(name.clone(), number);
            disk.files.insert(number, File { synced: content.clone(), unsynced: Vec::new() });
        }
        disk
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Create { file, name } => match self.names_with(self.unsynced_names.len()).get(name) {
                // The recorder tells of a file when it is first opened; this one was there.
                Some(given) => drop(self.given.insert(*file, *given)),
                None => {
                    self.files.insert(*file, File::default());
                    self.unsynced_names.push(event.clone());
                }
            },
            Event::Write { file, .. } | Event::Resize { file, .. } => self.file(*file).unsynced.push(event.clone()),
            Event::Sync { file } => {
                let file = self.file(*file);
                file.synced = file.with(|_| true);
                file.unsynced.clear();
            }
            Event::FailedSync { file } => self.file(*file).unsynced.clear(),
            Event::SyncDirectory => {
                self.names = self.names_with(self.unsynced_names.len());
                self.unsynced_names.clear();
            }
            Event::Unlink { .. } | Event::Rename { .. } => self.unsynced_names.push(event.clone()),
            Event::Promise(_) | Event::FailedSyncDirectory => {}
            Event::Mapped { file } => panic!("file {file} is mapped for writing: this disk would be a guess"),
        }
    }

    /// Everything, as the running program saw it.
    pub fn whole(&self) -> Image {
        self.image(self.unsynced_names.len(), File::whole)
    }

    /// What a cut now could leave: nothing and everything of what is not synced, each write alone, random subsets, and torn
    /// writes; names as of each moment since the directory was synced. The last is bounded like the rest.
    pub fn images(&self, random: &mut Random) -> Vec<(String, Image)> {
        let all_names = self.unsynced_names.len();
        let mut images = vec![("nothing un-synced".to_owned(), self.image(0, File::nothing))];
        let mut add = |what: String, image: Image| images.push((what, image));
        add("everything".into(), self.whole());
        for names in 0..all_names {
            add(format!("all writes, {names} names"), self.image(names, File::whole));
            add(format!("no writes, {} names", names + 1), self.image(names + 1, File::nothing));
        }
        let writes: Vec<(u32, usize)> =
            self.files.iter().flat_map(|(n, file)| (0..file.unsynced.len()).map(|i| (*n, i))).collect();
        if writes.is_empty() {
            return images;
        }
        for (n, i) in random.some(&writes, ALONE) {
            add(format!("all but write {i} of file {n}"), self.image_by(all_names, |file, at| (file, at) != (n, i)));
            add(format!("only write {i} of file {n}"), self.image_by(all_names, |file, at| (file, at) == (n, i)));
        }
        for _ in 0..RANDOM_SUBSETS {
            let kept: BTreeSet<(u32, usize)> = writes.iter().copied().filter(|_| random.below(2) == 0).collect();
            let names = random.below(all_names + 1);
            add(format!("{kept:?}, {names} names"), self.image_by(names, |file, at| kept.contains(&(file, at))));
        }
        for block in [SECTOR, PAGE] {
            add(format!("random blocks of {block}"), self.image(all_names, |file| file.torn(block, random)));
            add(format!("the last write torn at {block}"), self.image(all_names, |file| file.last_torn(block, random)));
        }
        images
    }

    fn file(&mut self, file: u32) -> &mut File {
        self.files.get_mut(self.given.get(&file).unwrap_or(&file)).expect("a file is created before it is written")
    }

    fn names_with(&self, count: usize) -> BTreeMap<String, u32> {
        let mut names = self.names.clone();
        for event in &self.unsynced_names[..count] {
            match event {
                Event::Create { file, name } => drop(names.insert(name.clone(), *file)),
                Event::Unlink { name } => drop(names.remove(name)),
                Event::Rename { from, to } => {
                    if let Some(file) = names.remove(from) {
                        names.insert(to.clone(), file);
                    }
                }
                _ => unreachable!("only names are kept there"),
            }
        }
        names
    }

    fn image(&self, names: usize, mut content: impl FnMut(&File) -> Vec<u8>) -> Image {
        self.names_with(names).into_iter().map(|(name, file)| (name, content(&self.files[&file]))).collect()
    }

    fn image_by(&self, names: usize, kept: impl Fn(u32, usize) -> bool) -> Image {
        let content = |(name, n): (String, u32)| (name, self.files[&n].with(|i| kept(n, i)));
        self.names_with(names).into_iter().map(content).collect()
    }
}

impl File {
    fn nothing(&self) -> Vec<u8> {
        self.synced.clone()
    }

    fn whole(&self) -> Vec<u8> {
        self.with(|_| true)
    }

    fn with(&self, kept: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (_, event) in self.unsynced.iter().enumerate().filter(|(i, _)| kept(*i)) {
            match event {
                Event::Write { at, data, .. } => write(&mut content, *at, data),
                Event::Resize { length, .. } => content.resize(*length, 0),
                _ => unreachable!("only content is kept there"),
            }
        }
        content
    }

    /// Each block of the file is the old or the new one, as chance has it.
    fn torn(&self, block: usize, random: &mut Random) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (i, new) in self.whole().chunks(block).enumerate() {
            if content.get(i * block..i * block + new.len()) != Some(new) && random.below(2) == 0 {
                write(&mut content, i * block, new);
            }
        }
        content
    }

    /// The last write reached the disk up to a block boundary within it.
    fn last_torn(&self, block: usize, random: &mut Random) -> Vec<u8> {
        let Some(Event::Write { at, data, .. }) = self.unsynced.last() else { return self.whole() };
        let last = self.unsynced.len() - 1;
        let mut content = self.with(|i| i != last);
        let boundaries: Vec<usize> = (at + 1..at + data.len()).filter(|offset| offset.is_multiple_of(block)).collect();
        if let Some(end) = random.some(&boundaries, 1).first() {
            write(&mut content, *at, &data[..end - at]);
        }
        content
    }
}

fn write(content: &mut Vec<u8>, at: usize, data: &[u8]) {
    if content.len() < at + data.len() {
        content.resize(at + data.len(), 0);
    }
    content[at..at + data.len()].copy_from_slice(data);
}

/// SplitMix64: the same seed, the same images.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// All of a short list, `count` of a long one.
    fn some<T: Copy>(&mut self, list: &[T], count: usize) -> Vec<T> {
        let mut list = list.to_vec();
        while list.len() > count {
            let at = self.below(list.len());
            list.swap_remove(at);
        }
        list
    }
}
