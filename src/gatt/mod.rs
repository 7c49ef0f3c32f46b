//! Octets of a characteristic → what the device said: one file a service. Pure: no I/O, no clock, no panic on any input,
//! and no memory that the input's length does not account for. Lenient by rule: what is odd but readable is decoded and
//! reported as a [`Warning`]; what is cut short is refused whole, so half a reading never exists.

mod advertisements;
mod battery;
mod blood_pressure;
mod body_composition;
mod bthome;
mod cgm;
mod cgm_control;
mod characteristics;
mod context;
mod crc;
mod current_time;
mod cursor;
mod date_time;
mod device_information;
mod device_kind;
mod elapsed_time;
mod enhanced_blood_pressure;
mod environment;
mod error;
mod fields;
mod float;
mod glucose;
mod glucose_context;
mod glucose_pairs;
mod health_sensor;
mod health_sensor_control;
mod heart_rate;
mod insulin;
mod mibeacon;
mod nonin;
mod observed;
mod omron;
mod polar;
mod pulse_oximeter;
mod record_access;
mod scaled;
mod segment;
mod table;
mod thermometer;
mod user_data;
mod vendor_scale;
mod weight_scale;
mod xoss;

pub use advertisements::{ADVERTISEMENTS, Advertisement, Source};
pub use battery::{BatteryCriticalStatus, BatteryLevel, BatteryLevelStatus};
pub use blood_pressure::{BloodPressureFeature, BloodPressureMeasurement, IntermediateCuffPressure};
pub use body_composition::{BodyCompositionFeature, BodyCompositionMeasurement, BodyCompositionParts};
pub use bthome::{BthomeAdvertisement, Freshness, ReplayGuard};
pub use cgm::{CgmFeature, CgmMeasurement, CgmRecord, CgmSession, CgmSessionRunTime, CgmSessionStartTime, CgmStatus};
pub use cgm_control::{CgmQuestion, CgmSpecificOpsControlPoint, Operand};
pub use characteristics::{CHARACTERISTICS, TYPES};
pub use context::{Context, ContextError};
pub use crc::crc16;
pub use current_time::{CurrentTime, LocalTimeInformation, ReferenceTimeInformation};
pub use cursor::{Cursor, Decode, Measurement, Read, Records, read, read_with};
pub use date_time::DateTime;
pub use device_information::{PnpId, SystemId, Text, UdiForMedicalDevices};
pub use device_kind::{DeviceKind, Memory, Told, device_kinds, stored_record, told_better_by};
pub use elapsed_time::ElapsedTime;
pub use enhanced_blood_pressure::{
    BloodPressureRecord, EnhancedBloodPressureMeasurement, EnhancedIntermediateCuffPressure, RECORD_PREFIX,
};
pub use environment::{AirPressure, AmbientTemperature, Humidity};
pub use error::{DecodeError, SegmentFault, Warning};
pub use fields::{Field, Fields};
pub use float::{Medfloat16, Medfloat32};
pub use glucose::{GlucoseFeature, GlucoseMeasurement};
pub use glucose_context::GlucoseMeasurementContext;
pub use glucose_pairs::{GlucosePairs, GlucoseRecord};
pub use health_sensor::{HealthObservations, Observation, ObservationValue, SampleArray, StoredHealthObservations};
pub use health_sensor_control::GhsControlPoint;
pub use heart_rate::{BodySensorLocation, Contact, HeartRateMeasurement};
pub use insulin::{IddStatus, IddStatusChanged};
pub use mibeacon::{MiBeacon, ScaleS400};
pub use nonin::NoninContinuous;
pub use observed::{Absent, Measured, Number, Numbers, Observed, Status};
pub use omron::OmronRecord;
pub use polar::{PmdData, PmdSamples, PulseInterval};
pub use pulse_oximeter::{PlxContinuousMeasurement, PlxFeatures, PlxSpotCheckMeasurement};
pub use record_access::{Bound, RecordAccessControlPoint, RecordAccessResult, StoredRecords, Width};
pub use segment::{Joined, Pushed, SegmentJoiner};
pub use table::{
    Characteristic, Decoded, Decoder, Properties, UnknownCharacteristic, characteristic, decode, device_clock, find,
    information_text, names, observe, sig_uuid,
};
pub use thermometer::{IntermediateTemperature, MeasurementInterval, TemperatureMeasurement, TemperatureType};
pub use user_data::{
    Age, ConsentCode, DatabaseChangeIncrement, DateOfBirth, Gender, Height, RegisteredUser, UserControlPoint, UserIndexValue,
    Weight,
};
pub use vendor_scale::{AndUc352Weight, MiBodyScale};
pub use weight_scale::{WeightMeasurement, WeightScaleFeature};
pub use xoss::XossAdvertisement;
