//! Split, mask and number on one core.

use crate::figures::judged;
use anyhow::Result;

pub(crate) fn measure() -> Result<()> {
    let mib_per_second = e2e::throughput::mask_and_split(256)?;
    judged("split + mask + number on one core", mib_per_second, "MB/s", 100.0, true);
    Ok(())
}
