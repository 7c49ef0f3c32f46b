//! Rows out of b-tree pages, as far as the pages can be read. Written against the SQLite file format; every length and
//! pointer is taken as a claim.

use std::collections::BTreeMap;

use rusqlite::types::Value;

use super::pages::{Page, Pages, USABLE, Visited, word};

const LEAF_TABLE: u8 = 0x0D;
const INNER_TABLE: u8 = 0x05;
const LEAF_INDEX: u8 = 0x0A;
const INNER_INDEX: u8 = 0x02;
/// A row of ours is at most one frame; a damaged length can't ask for more memory than that.
const MAX_PAYLOAD: usize = 64 << 20;

/// A row: its number (0 in a table without) and its columns.
pub type Row = (i64, Vec<Value>);

/// What lies below a page that can't be read: rows with numbers above the first and up to the second.
pub type Lost = (i64, i64);

pub struct Reader<'a> {
    pages: &'a Pages,
    pub visited: Visited,
}

impl<'a> Reader<'a> {
    pub fn new(pages: &'a Pages) -> Self {
        Self { pages, visited: free_pages(pages) }
    }

    /// Hands out every row that can be reached from `root`, and tells what can't.
    pub fn walk(&mut self, root: u32, each: &mut dyn FnMut(Row)) -> Vec<Lost> {
        let mut lost = Vec::new();
        self.descend(root, (i64::MIN, i64::MAX), each, &mut lost);
        lost
    }

    fn descend(&mut self, page: u32, span: Lost, each: &mut dyn FnMut(Row), lost: &mut Vec<Lost>) {
        if page == 0 || page > self.pages.count() || !self.visited.insert(page) {
            lost.push(span);
            return;
        }
        let Some(octets) = self.pages.read(page) else {
            lost.push(span);
            return;
        };
        let Some(cells) = Cells::of(page, &octets) else {
            lost.push(span);
            return;
        };
        let mut low = span.0;
        for at in cells.offsets(&octets) {
            match cells.kind {
                LEAF_TABLE => match self.table_cell(&octets, at) {
                    Ok(row) => each(row),
                    Err(Some(number)) => lost.push((number - 1, number)),
                    Err(None) => lost.push(span),
                },
                LEAF_INDEX => match self.index_cell(&octets, at) {
                    Some(row) => each((0, row)),
                    None => lost.push(span),
                },
                INNER_INDEX => {
                    let child = octets.get(at..at + 4).map_or(0, word);
                    self.descend(child, span, each, lost);
                    match self.index_cell(&octets, at + 4) {
                        Some(row) => each((0, row)),
                        None => lost.push(span),
                    }
                }
                _ => {
                    let child = octets.get(at..at + 4).map_or(0, word);
                    let high = varint(&octets, at + 4).map_or(span.1, |(key, _)| key as i64);
                    self.descend(child, (low, high), each, lost);
                    low = high;
                }
            }
        }
        if let Some(right) = cells.right {
            self.descend(right, (low, span.1), each, lost);
        }
    }

    /// Rows of leaves that nothing readable points to; `each` is to take only what it knows by its shape.
    pub fn strays(&mut self, each: &mut dyn FnMut(Row)) {
        for page in 1..=self.pages.count() {
            if self.visited.contains(&page) {
                continue;
            }
            let Some(octets) = self.pages.read(page) else { continue };
            let Some(cells) = Cells::of(page, &octets) else { continue };
            for at in cells.offsets(&octets) {
                match cells.kind {
                    LEAF_TABLE => self.table_cell(&octets, at).into_iter().for_each(&mut *each),
                    LEAF_INDEX => self.index_cell(&octets, at).into_iter().for_each(|row| each((0, row))),
                    INNER_INDEX => self.index_cell(&octets, at + 4).into_iter().for_each(|row| each((0, row))),
                    _ => {}
                }
            }
        }
    }

    /// The error is the number of a row whose rest can't be read.
    fn table_cell(&mut self, page: &Page, at: usize) -> Result<Row, Option<i64>> {
        let (length, at) = varint(page, at).ok_or(None)?;
        let (number, at) = varint(page, at).ok_or(None)?;
        let number = number as i64;
        let payload = self.payload(page, at, length, USABLE - 35).ok_or(Some(number))?;
        Ok((number, columns(&payload).ok_or(Some(number))?))
    }

    fn index_cell(&mut self, page: &Page, at: usize) -> Option<Vec<Value>> {
        let (length, at) = varint(page, at)?;
        columns(&self.payload(page, at, length, (USABLE - 12) * 64 / 255 - 23)?)
    }

    /// A payload of which at most `most` octets are on its page, and the rest on a chain of others.
    fn payload(&mut self, page: &Page, at: usize, length: u64, most: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PAYLOAD)?;
        if length <= most {
            return page.get(at..at + length).map(<[u8]>::to_vec);
        }
        let least = (USABLE - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (USABLE - 4);
        let local = if fitting <= most { fitting } else { least };
        let mut payload = page.get(at..at + local)?.to_vec();
        let mut next = page.get(at + local..at + local + 4).map(word)?;
        while payload.len() < length {
            if next == 0 || next > self.pages.count() {
                return None;
            }
            self.visited.insert(next);
            let more = self.pages.read(next)?;
            let wanted = (length - payload.len()).min(USABLE - 4);
            payload.extend_from_slice(&more[4..4 + wanted]);
            next = word(&more);
        }
        Some(payload)
    }
}

struct Cells {
    kind: u8,
    first: usize,
    count: usize,
    right: Option<u32>,
}

impl Cells {
    fn of(page: u32, octets: &Page) -> Option<Self> {
        let header = if page == 1 { 100 } else { 0 };
        let kind = octets[header];
        let count = usize::from(u16::from_be_bytes([octets[header + 3], octets[header + 4]]));
        let inner = match kind {
            LEAF_TABLE | LEAF_INDEX => false,
            INNER_TABLE | INNER_INDEX => true,
            _ => return None,
        };
        let first = header + if inner { 12 } else { 8 };
        (first + 2 * count <= USABLE).then(|| Self { kind, first, count, right: inner.then(|| word(&octets[header + 8..])) })
    }

    fn offsets(&self, octets: &Page) -> Vec<usize> {
        let cells = octets[self.first..self.first + 2 * self.count].chunks_exact(2);
        cells.map(|two| usize::from(u16::from_be_bytes([two[0], two[1]]))).collect()
    }
}

/// Pages that hold nothing any more, and may still look as if they did.
fn free_pages(pages: &Pages) -> Visited {
    let mut free = Visited::new();
    let mut trunk = pages.read(1).map_or(0, |first| word(&first[32..]));
    while trunk != 0 && free.insert(trunk) {
        let Some(octets) = pages.read(trunk) else { break };
        let leaves = (word(&octets[4..]) as usize).min(USABLE / 4 - 2);
        free.extend(octets[8..8 + 4 * leaves].chunks_exact(4).map(word));
        trunk = word(&octets);
    }
    free
}

/// Root pages by name, as the file's own first page has them.
pub fn roots(reader: &mut Reader<'_>) -> BTreeMap<String, u32> {
    let mut roots = BTreeMap::new();
    let _ = reader.walk(1, &mut |(_, columns)| {
        if let [Value::Text(kind), Value::Text(name), _, Value::Integer(root), ..] = &columns[..]
            && kind == "table"
        {
            roots.insert(name.clone(), u32::try_from(*root).unwrap_or(0));
        }
    });
    roots
}

fn varint(octets: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, octet) in octets.get(at..)?.iter().take(9).enumerate() {
        if i == 8 {
            return Some((value << 8 | u64::from(*octet), at + 9));
        }
        value = value << 7 | u64::from(octet & 0x7F);
        if octet & 0x80 == 0 {
            return Some((value, at + i + 1));
        }
    }
    None
}

fn columns(payload: &[u8]) -> Option<Vec<Value>> {
    let (header, mut at) = varint(payload, 0)?;
    let header = usize::try_from(header).ok()?;
    let mut body = header;
    let mut columns = Vec::new();
    while at < header {
        let (kind, next) = varint(payload, at)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let octets = payload.get(body..body.checked_add(length)?)?;
        body += length;
        columns.push(match kind {
            0 => Value::Null,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => Value::Integer(integer(octets)),
            7 => Value::Real(f64::from_be_bytes(octets.try_into().ok()?)),
            _ if kind % 2 == 0 => Value::Blob(octets.to_vec()),
            _ => Value::Text(String::from_utf8(octets.to_vec()).ok()?),
        });
    }
    Some(columns)
}

fn integer(octets: &[u8]) -> i64 {
    let sign = if octets[0] & 0x80 == 0 { 0 } else { -1 };
    octets.iter().fold(sign, |value, octet| value << 8 | i64::from(*octet))
}
