//! What devices that are read by their advertisements say, made by the published rules and not by bedrail's own code.

use aes::Aes128;
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U4, U13};

/// The service data of BTHome v2.
pub const BTHOME: u16 = 0xFCD2;
pub const KEY: [u8; 16] = [0x23, 0x1d, 0x39, 0xc1, 0xd7, 0xcc, 0x1a, 0xb1, 0xae, 0xe2, 0x24, 0xcd, 0x09, 0x6d, 0xb9, 0x32];
/// The same as a secret of the config.
pub const KEY_DIGITS: &[u8] = b"231d39c1d7cc1ab1aee224cd096db932\n";

/// A temperature in hundredths of a degree, in the clear.
pub fn plain(centi: i16) -> Vec<u8> {
    [&[0x40, 0x02][..], &centi.to_le_bytes()].concat()
}

/// bthome.io/encryption: AES-CCM over the objects, with address, UUID, device information and counter as the nonce.
pub fn sealed(address: &str, key: [u8; 16], counter: u32, centi: i16) -> Vec<u8> {
    let info = 0x41;
    let mut objects = plain(centi)[1..].to_vec();
    let address: Vec<u8> = address.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal")).collect();
    let nonce = [&address[..], &BTHOME.to_le_bytes(), &[info], &counter.to_le_bytes()].concat();
    let nonce: [u8; 13] = nonce.try_into().expect("13 octets");
    let cipher = Ccm::<Aes128, U4, U13>::new(&key.into());
    let mic = cipher.encrypt_inout_detached(&nonce.into(), &[], objects.as_mut_slice().into()).expect("it is short");
    [&[info][..], &objects, &counter.to_le_bytes(), &mic].concat()
}
