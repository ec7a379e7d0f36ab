//! Bounds on what a request may carry. Beyond them the answer is a 400 or 413 that names the bound. [`crate::validate`] checks them for every
//! service; a test of the api-gateway tries each at both ends.

/// The user data of an instance in bytes, before any encoding. EC2 and NoCloud usually allow 16 KiB; cloud-init copes with this much.
pub const USER_DATA_BYTES: usize = 64 * 1024;
pub const SSH_KEYS_PER_INSTANCE: usize = 32;
pub const SSH_KEY_BYTES: usize = 16 * 1024;
pub const TAGS_PER_OBJECT: usize = 64;
pub const TAG_KEY_BYTES: usize = 128;
pub const TAG_VALUE_BYTES: usize = 256;
pub const DESCRIPTION_BYTES: usize = 1024;
pub const KERNEL_CMDLINE_BYTES: usize = 1024;
pub const NICS_PER_INSTANCE: usize = 16;
/// How soon an instance may be wanted back after the loss of its host, seconds.
pub const RTO_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
/// How long a stop may wait for the guest, seconds.
pub const STOP_TIMEOUT_SECS_MAX: u32 = 3600;
pub const FIXED_IPS_PER_PORT: usize = 16;
pub const SECURITY_GROUPS_PER_PORT: usize = 16;
pub const ALLOWED_ADDRESSES_PER_PORT: usize = 32;
/// The highest rate limit of a port, in bits per second for each direction.
pub const PORT_RATE_BPS_MAX: u64 = 1 << 50;
pub const DNS_SERVERS_PER_SUBNET: usize = 8;
/// Ranges from which addresses are allocated; the same bound holds for a subnet of an external network.
pub const ALLOCATION_RANGES_PER_SUBNET: usize = 32;
pub const HOST_ROUTES_PER_SUBNET: usize = 32;
pub const SUBNETS_PER_EXTERNAL_NETWORK: usize = 32;
/// Rules that one request gives a new security group. How many a group has is the quota's to bound.
pub const SECURITY_RULES_PER_REQUEST: usize = 200;
/// Moves that one rebalance plan may have.
pub const REBALANCE_MOVES: u32 = 10_000;
/// Instances that one request may create.
pub const CREATE_COUNT: u32 = 100;
pub const PAGE_DEFAULT: u32 = 100;
pub const PAGE_MAX: u32 = 1000;
/// Bytes of a JSON request body.
pub const BODY_BYTES: usize = 1024 * 1024;
pub const VCPUS_MAX: u32 = 256;
pub const MEMORY_MIB_MIN: u64 = 64;
pub const MEMORY_MIB_MAX: u64 = 16 * 1024 * 1024;
pub const DISK_GIB_MAX: u64 = 64 * 1024;
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
/// The longest `?timeout=` of `?wait=`, in seconds.
pub const WAIT_SECS_MAX: u64 = 600;
/// Placement groups that one instance may be in.
pub const PLACEMENT_GROUPS_PER_INSTANCE: usize = 8;
/// Tags that an instance may require of its host, and as many that it may forbid.
pub const PLACEMENT_TAGS_PER_INSTANCE: usize = 16;
pub const CPU_FEATURES_PER_INSTANCE: usize = 32;
pub const CPU_FEATURE_BYTES: usize = 64;
/// vCPUs per hardware thread of a host, in thousandths.
pub const CPU_OVERCOMMIT_PERMILLE: std::ops::RangeInclusive<u32> = 100..=100_000;
/// Guests' memory per memory of a host. Guests that use more than the host has make it swap, so the bound is low.
pub const MEMORY_OVERCOMMIT_PERMILLE: std::ops::RangeInclusive<u32> = 100..=10_000;
/// Guests' disk per disk of a host. Root disks are thin, and most never fill.
pub const DISK_OVERCOMMIT_PERMILLE: std::ops::RangeInclusive<u32> = 100..=100_000;
