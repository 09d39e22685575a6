//! Writes Kafka's variable-length integers (protobuf's, zigzag for signed ones), and tells how long they will be.
//! `reader` reads them.

use bytes::BufMut;

pub(crate) fn put_unsigned(buf: &mut impl BufMut, value: u32) {
    put_unsigned_long(buf, u64::from(value));
}

pub(crate) fn put(buf: &mut impl BufMut, value: i32) {
    put_unsigned_long(buf, u64::from(zigzag(value)));
}

pub(crate) fn put_long(buf: &mut impl BufMut, value: i64) {
    put_unsigned_long(buf, zigzag_long(value));
}

fn put_unsigned_long(buf: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8(0x80 | u8::try_from(value & 0x7f).expect("seven bits fit"));
        value >>= 7;
    }
    buf.put_u8(u8::try_from(value).expect("below 0x80"));
}

pub(crate) fn size(value: i32) -> usize {
    unsigned_long_size(u64::from(zigzag(value)))
}

pub(crate) fn long_size(value: i64) -> usize {
    unsigned_long_size(zigzag_long(value))
}

fn unsigned_long_size(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

fn zigzag_long(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}
