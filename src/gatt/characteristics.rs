//! The rows of the one table of characteristics bedrail can read, service by service.

use uuid::Uuid;

use super::float::{Medfloat16, Medfloat32};
use super::table::{Characteristic, Decoder, Properties, measurement, plain, records, segmented, segmented_records, sig_uuid};
use super::{
    Age, AirPressure, AmbientTemperature, AndUc352Weight, BatteryCriticalStatus, BatteryLevel, BatteryLevelStatus,
    BloodPressureFeature, BloodPressureMeasurement, BloodPressureRecord, BodyCompositionFeature, BodyCompositionMeasurement,
    BodySensorLocation, CgmFeature, CgmMeasurement, CgmSessionRunTime, CgmSessionStartTime, CgmSpecificOpsControlPoint,
    CgmStatus, CurrentTime, DatabaseChangeIncrement, DateOfBirth, DateTime, ElapsedTime, EnhancedBloodPressureMeasurement,
    EnhancedIntermediateCuffPressure, Gender, GhsControlPoint, GlucoseFeature, GlucoseMeasurement, GlucoseMeasurementContext,
    HealthObservations, HeartRateMeasurement, Height, Humidity, IddStatus, IddStatusChanged, IntermediateCuffPressure,
    IntermediateTemperature, LocalTimeInformation, MeasurementInterval, NoninContinuous, OmronRecord, PlxContinuousMeasurement,
    PlxFeatures, PlxSpotCheckMeasurement, PmdData, PnpId, RecordAccessControlPoint, ReferenceTimeInformation, RegisteredUser,
    StoredHealthObservations, SystemId, TemperatureMeasurement, TemperatureType, Text, UdiForMedicalDevices, UserControlPoint,
    UserIndexValue, Weight, WeightMeasurement, WeightScaleFeature,
};

const READ: Properties = Properties { read: true, notify: false, indicate: false };
const NOTIFY: Properties = Properties { read: false, notify: true, indicate: false };
const INDICATE: Properties = Properties { read: false, notify: false, indicate: true };
const READ_NOTIFY: Properties = Properties { notify: true, ..READ };
const READ_INDICATE: Properties = Properties { indicate: true, ..READ };

const HEART_RATE: Option<Uuid> = Some(sig_uuid(0x180D));
const THERMOMETER: Option<Uuid> = Some(sig_uuid(0x1809));
const BLOOD_PRESSURE: Option<Uuid> = Some(sig_uuid(0x1810));
const OXIMETER: Option<Uuid> = Some(sig_uuid(0x1822));
const GLUCOSE: Option<Uuid> = Some(sig_uuid(0x1808));
const CGM: Option<Uuid> = Some(sig_uuid(0x181F));
const WEIGHT_SCALE: Option<Uuid> = Some(sig_uuid(0x181D));
const BODY_COMPOSITION: Option<Uuid> = Some(sig_uuid(0x181B));
const USER: Option<Uuid> = Some(sig_uuid(0x181C));
const TIME: Option<Uuid> = Some(sig_uuid(0x1805));
const ELAPSED_TIME: Option<Uuid> = Some(sig_uuid(0x183F));
const INFORMATION: Option<Uuid> = Some(sig_uuid(0x180A));
const BATTERY: Option<Uuid> = Some(sig_uuid(0x180F));
const ENVIRONMENT: Option<Uuid> = Some(sig_uuid(0x181A));
const HEALTH_SENSOR: Option<Uuid> = Some(sig_uuid(0x1840));
const INSULIN: Option<Uuid> = Some(sig_uuid(0x183A));
const NONIN: Option<Uuid> = Some(Uuid::from_u128(0x46A9_70E0_0D5F_11E2_8B5E_0002_A5D5_C51B));
const POLAR: Option<Uuid> = Some(Uuid::from_u128(0xFB00_5C80_02E7_F387_1CAD_8ACD_2D8D_F0C8));
const AND_SCALE: Option<Uuid> = Some(Uuid::from_u128(0x2343_4100_1FE4_1EFF_80CB_00FF_7829_7D8B));

/// Every characteristic bedrail can read, by service.
pub const CHARACTERISTICS: &[Characteristic] = &[
    measurement::<HeartRateMeasurement>(0x2A37, "heart_rate_measurement", "Heart Rate Measurement", NOTIFY, HEART_RATE),
    plain::<BodySensorLocation>(0x2A38, "body_sensor_location", "Body Sensor Location", READ, HEART_RATE),
    measurement::<TemperatureMeasurement>(0x2A1C, "temperature_measurement", "Temperature Measurement", INDICATE, THERMOMETER),
    plain::<TemperatureType>(0x2A1D, "temperature_type", "Temperature Type", READ, THERMOMETER),
    measurement::<IntermediateTemperature>(0x2A1E, "intermediate_temperature", "Intermediate Temperature", NOTIFY, THERMOMETER),
    plain::<MeasurementInterval>(0x2A21, "measurement_interval", "Measurement Interval", READ_INDICATE, THERMOMETER),
    measurement::<BloodPressureMeasurement>(
        0x2A35,
        "blood_pressure_measurement",
        "Blood Pressure Measurement",
        INDICATE,
        BLOOD_PRESSURE,
    ),
    measurement::<IntermediateCuffPressure>(
        0x2A36,
        "intermediate_cuff_pressure",
        "Intermediate Cuff Pressure",
        NOTIFY,
        BLOOD_PRESSURE,
    ),
    plain::<BloodPressureFeature>(0x2A49, "blood_pressure_feature", "Blood Pressure Feature", READ_INDICATE, BLOOD_PRESSURE),
    measurement::<EnhancedBloodPressureMeasurement>(
        0x2B34,
        "enhanced_blood_pressure_measurement",
        "Enhanced Blood Pressure Measurement",
        INDICATE,
        BLOOD_PRESSURE,
    ),
    measurement::<EnhancedIntermediateCuffPressure>(
        0x2B35,
        "enhanced_intermediate_cuff_pressure",
        "Enhanced Intermediate Cuff Pressure",
        NOTIFY,
        BLOOD_PRESSURE,
    ),
    segmented(0x2B36, "blood_pressure_record", "Blood Pressure Record", NOTIFY, BLOOD_PRESSURE, BloodPressureRecord::of_segments),
    measurement::<PlxSpotCheckMeasurement>(
        0x2A5E,
        "plx_spot_check_measurement",
        "PLX Spot-Check Measurement",
        INDICATE,
        OXIMETER,
    ),
    measurement::<PlxContinuousMeasurement>(0x2A5F, "plx_continuous_measurement", "PLX Continuous Measurement", NOTIFY, OXIMETER),
    plain::<PlxFeatures>(0x2A60, "plx_features", "PLX Features", READ_INDICATE, OXIMETER),
    measurement::<GlucoseMeasurement>(0x2A18, "glucose_measurement", "Glucose Measurement", NOTIFY, GLUCOSE),
    measurement::<GlucoseMeasurementContext>(
        0x2A34,
        "glucose_measurement_context",
        "Glucose Measurement Context",
        NOTIFY,
        GLUCOSE,
    ),
    plain::<GlucoseFeature>(0x2A51, "glucose_feature", "Glucose Feature", READ_INDICATE, GLUCOSE),
    records::<CgmMeasurement>(0x2AA7, "cgm_measurement", "CGM Measurement", NOTIFY, CGM),
    plain::<CgmFeature>(0x2AA8, "cgm_feature", "CGM Feature", READ_INDICATE, CGM),
    plain::<CgmStatus>(0x2AA9, "cgm_status", "CGM Status", READ, CGM),
    plain::<CgmSessionStartTime>(0x2AAA, "cgm_session_start_time", "CGM Session Start Time", READ, CGM),
    plain::<CgmSessionRunTime>(0x2AAB, "cgm_session_run_time", "CGM Session Run Time", READ, CGM),
    plain::<CgmSpecificOpsControlPoint>(
        0x2AAC,
        "cgm_specific_ops_control_point",
        "CGM Specific Ops Control Point",
        INDICATE,
        CGM,
    ),
    measurement::<WeightMeasurement>(0x2A9D, "weight_measurement", "Weight Measurement", INDICATE, WEIGHT_SCALE),
    plain::<WeightScaleFeature>(0x2A9E, "weight_scale_feature", "Weight Scale Feature", READ_INDICATE, WEIGHT_SCALE),
    measurement::<BodyCompositionMeasurement>(
        0x2A9C,
        "body_composition_measurement",
        "Body Composition Measurement",
        INDICATE,
        BODY_COMPOSITION,
    ),
    plain::<BodyCompositionFeature>(
        0x2A9B,
        "body_composition_feature",
        "Body Composition Feature",
        READ_INDICATE,
        BODY_COMPOSITION,
    ),
    plain::<UserIndexValue>(0x2A9A, "user_index", "User Index", READ, USER),
    plain::<DatabaseChangeIncrement>(0x2A99, "database_change_increment", "Database Change Increment", READ_NOTIFY, USER),
    plain::<UserControlPoint>(0x2A9F, "user_control_point", "User Control Point", INDICATE, USER),
    plain::<RegisteredUser>(0x2B37, "registered_user", "Registered User", INDICATE, USER),
    plain::<Age>(0x2A80, "age", "Age", READ, USER),
    plain::<Gender>(0x2A8C, "gender", "Gender", READ, USER),
    plain::<Height>(0x2A8E, "height", "Height", READ, USER),
    plain::<Weight>(0x2A98, "weight", "Weight", READ, USER),
    plain::<DateOfBirth>(0x2A85, "date_of_birth", "Date of Birth", READ, USER),
    plain::<CurrentTime>(0x2A2B, "current_time", "Current Time", READ_NOTIFY, TIME),
    plain::<LocalTimeInformation>(0x2A0F, "local_time_information", "Local Time Information", READ, TIME),
    plain::<ReferenceTimeInformation>(0x2A14, "reference_time_information", "Reference Time Information", READ, TIME),
    plain::<ElapsedTime>(0x2BF2, "elapsed_time", "Elapsed Time", READ_INDICATE, ELAPSED_TIME),
    plain::<DateTime>(0x2A08, "date_time", "Date Time", READ, None),
    plain::<RecordAccessControlPoint>(0x2A52, "record_access_control_point", "Record Access Control Point", INDICATE, None),
    plain::<SystemId>(0x2A23, "system_id", "System ID", READ, INFORMATION),
    plain::<Text>(0x2A24, "model_number_string", "Model Number String", READ, INFORMATION),
    plain::<Text>(0x2A25, "serial_number_string", "Serial Number String", READ, INFORMATION),
    plain::<Text>(0x2A26, "firmware_revision_string", "Firmware Revision String", READ, INFORMATION),
    plain::<Text>(0x2A27, "hardware_revision_string", "Hardware Revision String", READ, INFORMATION),
    plain::<Text>(0x2A28, "software_revision_string", "Software Revision String", READ, INFORMATION),
    plain::<Text>(0x2A29, "manufacturer_name_string", "Manufacturer Name String", READ, INFORMATION),
    plain::<PnpId>(0x2A50, "pnp_id", "PnP ID", READ, INFORMATION),
    plain::<UdiForMedicalDevices>(0x2BFF, "udi_for_medical_devices", "UDI for Medical Devices", READ, INFORMATION),
    measurement::<BatteryLevel>(0x2A19, "battery_level", "Battery Level", READ_NOTIFY, BATTERY),
    measurement::<BatteryLevelStatus>(0x2BED, "battery_level_status", "Battery Level Status", READ_NOTIFY, BATTERY),
    plain::<BatteryCriticalStatus>(0x2BE9, "battery_critical_status", "Battery Critical Status", READ_INDICATE, BATTERY),
    plain::<AmbientTemperature>(0x2A6E, "temperature", "Temperature", READ_NOTIFY, ENVIRONMENT),
    plain::<Humidity>(0x2A6F, "humidity", "Humidity", READ_NOTIFY, ENVIRONMENT),
    plain::<AirPressure>(0x2A6D, "pressure", "Pressure", READ_NOTIFY, ENVIRONMENT),
    segmented_records::<HealthObservations>(
        0x2B8B,
        "live_health_observations",
        "Live Health Observations",
        NOTIFY,
        HEALTH_SENSOR,
    ),
    segmented_records::<StoredHealthObservations>(
        0x2BDD,
        "stored_health_observations",
        "Stored Health Observations",
        NOTIFY,
        HEALTH_SENSOR,
    ),
    plain::<GhsControlPoint>(0x2BF4, "ghs_control_point", "GHS Control Point", INDICATE, HEALTH_SENSOR),
    plain::<IddStatus>(0x2B21, "idd_status", "IDD Status", READ_INDICATE, INSULIN),
    plain::<IddStatusChanged>(0x2B20, "idd_status_changed", "IDD Status Changed", READ_INDICATE, INSULIN),
    Characteristic {
        uuid: Uuid::from_u128(0x0AAD_7EA0_0D60_11E2_8E3C_0002_A5D5_C51B),
        ..measurement::<NoninContinuous>(0, "nonin_continuous", "Nonin Continuous", NOTIFY, NONIN)
    },
    Characteristic {
        uuid: Uuid::from_u128(0xFB00_5C82_02E7_F387_1CAD_8ACD_2D8D_F0C8),
        ..plain::<PmdData>(0, "polar_pmd_data", "Polar PMD Data", NOTIFY, POLAR)
    },
    Characteristic {
        uuid: Uuid::from_u128(0x2343_4101_1FE4_1EFF_80CB_00FF_7829_7D8B),
        ..measurement::<AndUc352Weight>(0, "and_uc352_weight", "AND UC352 Weight", INDICATE, AND_SCALE)
    },
];

/// What has no UUID of its own, or shares one, known by name only.
pub const TYPES: &[(&str, Decoder)] = &[
    ("medfloat16", Decoder::plain::<Medfloat16>()),
    ("medfloat32", Decoder::plain::<Medfloat32>()),
    ("dis_string", Decoder::plain::<Text>()),
    ("polar_pmd_ecg", Decoder::plain::<PmdData>()),
    ("polar_pmd_ppi", Decoder::plain::<PmdData>()),
    ("omron_hem7188t1_record", Decoder::measurement::<OmronRecord>()),
];
