//! `bedrail assign`, `unassign`: who is measured by which device and lies in which bed, from when to when.

use std::process::ExitCode;

use serde_json::json;

use super::ConfigArg;
use super::ask::{self, Owner};
use crate::reading::SubjectKey;

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Name of a device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Name of a bed
    #[arg(long, value_name = "NAME")]
    bed: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct AssignArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Only this user slot of the device
    #[arg(long, value_name = "INDEX", requires = "device")]
    user: Option<u8>,
    /// The patient's opaque key
    patient: SubjectKey,
    /// Only the next readings of a shared device, as a scan of wristband and device would
    #[arg(long, requires = "device", conflicts_with = "user")]
    spot: bool,
    /// When it began, with an offset, if not now; the past is limited by ward.back_dating
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Confirm how many readings of the past change hands
    #[arg(long, value_name = "N", requires = "from")]
    yes: Option<u64>,
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Clone, Debug, clap::Args)]
pub struct UnassignArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Only this user slot of the device
    #[arg(long, value_name = "INDEX", requires = "device")]
    user: Option<u8>,
    /// When it ended, with an offset, if not now; the past is limited by ward.back_dating
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Confirm how many readings of the past change hands
    #[arg(long, value_name = "N", requires = "at")]
    yes: Option<u64>,
    #[command(flatten)]
    config: ConfigArg,
}

pub fn assign(args: AssignArgs) -> ExitCode {
    let TargetArgs { device, bed } = args.target;
    let body = json!({
        "device": device,
        "user": args.user,
        "bed": bed,
        "patient": args.patient,
        "spot": args.spot,
        "at": args.from,
        "yes": args.yes,
    });
    ask::ask(&args.config, Owner::Deliver, "POST", "/v1/assignments", body.to_string().into_bytes(), |answer| {
        println!("assigned to {} from {}", args.patient, ask::text(answer, "at"));
    })
}

pub fn unassign(args: UnassignArgs) -> ExitCode {
    let TargetArgs { device, bed } = args.target;
    let body = json!({ "device": device, "user": args.user, "bed": bed, "at": args.at, "yes": args.yes });
    ask::ask(&args.config, Owner::Deliver, "DELETE", "/v1/assignments", body.to_string().into_bytes(), |answer| {
        println!("assignment ended at {}", ask::text(answer, "at"));
    })
}
