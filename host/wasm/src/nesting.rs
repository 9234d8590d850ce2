//! How deep types of components and instances lie within each other. Whoever reads such a type goes into those within it,
//! and a stack that ends there ends the process: so this is looked at first, without going into anything.

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentImport, ComponentType, ComponentTypeRef, CoreType,
    Result,
};

/// Whether types lie deeper within each other than `depth_max` in a section of types.
///
/// # Errors
///
/// Where the section is damaged.
pub(super) fn is_deeper(section: BinaryReader<'_>, depth_max: usize) -> Result<bool> {
    let mut reader = section;
    // How many are still to be read of each type that has begun; the first is the section.
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

/// Reads what is declared within a type; a type only up to its beginning.
fn declares_type(reader: &mut BinaryReader<'_>) -> Result<bool> {
    match reader.read_u8()? {
        0x00 => reader.read::<CoreType<'_>>().map(drop)?,
        0x02 => reader.read::<ComponentAlias<'_>>().map(drop)?,
        0x03 => reader.read::<ComponentImport<'_>>().map(drop)?,
        0x04 => {
            reader.read::<ComponentExternName<'_>>()?;
            reader.read::<ComponentTypeRef>()?;
        }
        // What is none of these is told by whoever reads it in full.
        _ => return Ok(true),
    }
    Ok(false)
}

/// Reads a type; of one that holds others only how many they are.
fn begun(reader: &mut BinaryReader<'_>) -> Result<Option<u32>> {
    let kind = reader.clone().read_u8()?;
    if !matches!(kind, 0x41 | 0x42) {
        return reader.read::<ComponentType<'_>>().map(|_| None);
    }
    reader.read_u8()?;
    reader.read_var_u32().map(Some)
}
