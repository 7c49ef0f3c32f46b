//! Device Information Service (180A): who made the device and which one it is.

use super::fields::{Names, is_named};
use super::{Cursor, Decode, DecodeError, Field, Fields, Warning};

/// Any of the strings 2A24 to 2A29. Devices pad them with NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Decode for Text {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let octets = cursor.rest();
        let used = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        let octets = &octets[..used];
        if std::str::from_utf8(octets).is_err() {
            cursor.warn(Warning::InvalidUtf8);
        }
        Ok(Self(String::from_utf8_lossy(octets).into_owned()))
    }

    fn fields(&self) -> Fields {
        Fields::new().with("text", Field::Text(self.0.clone()))
    }
}

/// System ID (2A23): an EUI-64, most significant octet first here, last on air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemId {
    pub eui64: [u8; 8],
}

impl Decode for SystemId {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let mut eui64: [u8; 8] = cursor.array("eui64")?;
        eui64.reverse();
        Ok(Self { eui64 })
    }

    fn fields(&self) -> Fields {
        let text = format!("{:016x}", u64::from_be_bytes(self.eui64));
        Fields::new().with("eui64", Field::Text(text))
    }
}

const VENDOR_SOURCE: Names = &[(1, "bluetooth"), (2, "usb")];

/// PnP ID (2A50).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PnpId {
    /// Who gave out `vendor`: 1 the Bluetooth SIG, 2 the USB Implementer's Forum.
    pub vendor_source: u8,
    pub vendor: u16,
    pub product: u16,
    pub version: u16,
}

impl Decode for PnpId {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let vendor_source = cursor.u8("vendor_source")?;
        if !is_named(vendor_source, VENDOR_SOURCE) {
            cursor.warn(Warning::ReservedValue);
        }
        Ok(Self {
            vendor_source,
            vendor: cursor.u16("vendor_id")?,
            product: cursor.u16("product_id")?,
            version: cursor.u16("product_version")?,
        })
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .with("vendor_source", Field::Code(self.vendor_source, VENDOR_SOURCE))
            .with("vendor_id", Field::Integer(self.vendor.into()))
            .with("product_id", Field::Integer(self.product.into()))
            .with("product_version", Field::Integer(self.version.into()))
    }
}

const UDI_LABEL: u32 = 1 << 0;
const UDI_DEVICE_IDENTIFIER: u32 = 1 << 1;
const UDI_ISSUER: u32 = 1 << 2;
const UDI_AUTHORITY: u32 = 1 << 3;
const UDI_KNOWN_FLAGS: u32 = 0b1111;

/// UDI for Medical Devices (2BFF): the unique device identifier as on the label, and who gave it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdiForMedicalDevices {
    pub label: Option<String>,
    pub device_identifier: Option<String>,
    /// Object identifiers of the issuing organisation and of the authority.
    pub issuer: Option<String>,
    pub authority: Option<String>,
}

impl Decode for UdiForMedicalDevices {
    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let flags = cursor.u8("flags")?;
        let flags = cursor.known_bits(flags.into(), UDI_KNOWN_FLAGS);
        let mut text = |bit, field| (flags & bit != 0).then(|| terminated(cursor, field)).transpose();
        Ok(Self {
            label: text(UDI_LABEL, "label")?,
            device_identifier: text(UDI_DEVICE_IDENTIFIER, "device_identifier")?,
            issuer: text(UDI_ISSUER, "issuer")?,
            authority: text(UDI_AUTHORITY, "authority")?,
        })
    }

    fn fields(&self) -> Fields {
        let text = |text: &Option<String>| text.clone().map(Field::Text);
        Fields::new()
            .with_sent("label", text(&self.label))
            .with_sent("device_identifier", text(&self.device_identifier))
            .with_sent("issuer", text(&self.issuer))
            .with_sent("authority", text(&self.authority))
    }
}

/// A string up to its NUL, or to the end where it has none. An announced string of which nothing came is cut short.
fn terminated(cursor: &mut Cursor<'_>, field: &'static str) -> Result<String, DecodeError> {
    let ahead = cursor.ahead();
    if ahead.is_empty() {
        return Err(DecodeError::Truncated { field, needed: 1, left: 0 });
    }
    let end = ahead.iter().position(|octet| *octet == 0);
    let octets = cursor.octets(field, end.unwrap_or(ahead.len()))?;
    match end {
        Some(_) => _ = cursor.u8(field)?,
        None => cursor.warn(Warning::MissingTerminator),
    }
    if std::str::from_utf8(octets).is_err() {
        cursor.warn(Warning::InvalidUtf8);
    }
    Ok(String::from_utf8_lossy(octets).into_owned())
}
