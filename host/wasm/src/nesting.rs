//! Checks how deep types of components and instances lie within each other. Readers of such a type recurse into its
//! inner types, and a stack overflow ends the process. So this is checked first, without recursion.

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentImport, ComponentType, ComponentTypeRef, CoreType,
    Result,
};

/// Whether a section of types nests types deeper than `depth_max`.
///
/// # Errors
///
/// If the section is damaged.
pub(super) fn is_deeper(section: BinaryReader<'_>, depth_max: usize) -> Result<bool> {
    let mut reader = section;
    // How many parts are still to be read of each type that has begun; the first is the section itself.
    let mut left = vec![reader.read_var_u32()?];
    while let Some(count) = left.last_mut() {
        if *count == 0 {
            left.pop();
            continue;
        }
        *count -= 1;
        if left.len() == 1 || declares_type(&mut reader)? {
            left.extend(begun(&mut reader)?);
        }
        if left.len() > depth_max {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads a declaration within a type. Of an inner type, it reads only the beginning.
fn declares_type(reader: &mut BinaryReader<'_>) -> Result<bool> {
    match reader.read_u8()? {
        0x00 => reader.read::<CoreType<'_>>().map(drop)?,
        0x02 => reader.read::<ComponentAlias<'_>>().map(drop)?,
        0x03 => reader.read::<ComponentImport<'_>>().map(drop)?,
        0x04 => {
            reader.read::<ComponentExternName<'_>>()?;
            reader.read::<ComponentTypeRef>()?;
        }
        // The full reader reports anything else.
        _ => return Ok(true),
    }
    Ok(false)
}

/// Reads a type. If it contains others, reads only their number.
fn begun(reader: &mut BinaryReader<'_>) -> Result<Option<u32>> {
    let kind = reader.clone().read_u8()?;
    if !matches!(kind, 0x41 | 0x42) {
        return reader.read::<ComponentType<'_>>().map(|_| None);
    }
    reader.read_u8()?;
    reader.read_var_u32().map(Some)
}
