//! Health, conditions, logs and the audit trail; never patient data in a line of log.

pub mod logs;
