//! What can be written to a control point reads back as the same, and nothing that was read can be written unless it is meant
//! to be.

#![no_main]

use bedrail::gatt::{RecordAccessControlPoint, UserControlPoint, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok((request, _)) = read::<RecordAccessControlPoint>(octets) {
        assert_eq!(read(&request.encode()).map(|(again, _)| again), Ok(request));
    }
    if let Ok((request, _)) = read::<UserControlPoint>(octets)
        && let Some(written) = request.encode()
    {
        assert!(matches!(written[0], 1 | 2 | 4), "nothing that deletes");
        assert_eq!(read(&written).map(|(again, _)| again), Ok(request));
    }
});
