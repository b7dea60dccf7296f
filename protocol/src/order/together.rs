//! Orders that are signed together: their hashes are the leaves of a tree, the root of the tree is what is signed, and each
//! order carries the hashes that lead from it to the root. One signature is then good for each of them alone.
//!
//! The tree is that of RFC 9162, section 2.1 (leaves and nodes are hashed apart, SHA-256), but with the smaller hash of a pair
//! in front, so that nobody has to say on which side a leaf is. This file must not know what is in an order.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is signed begins with this, so that no root can be taken for an order.
const DOMAIN: &[u8] = b"bastio-orders-v1";
/// In front of what a leaf is hashed from.
const LEAF: u8 = 0;
/// In front of a pair of hashes.
const NODE: u8 = 1;
/// Most hashes from a leaf to its root.
const MAX_HASHES: usize = 16;
/// Most orders that are signed together.
pub(super) const MOST: usize = 1 << MAX_HASHES;

/// A SHA-256.
pub(super) type Hash = [u8; SHA256_OUTPUT_LEN];

/// The hashes that lead from an order to the signed root, the lowest first: 1 to 16. As text: all of them as base64.
/// Without any the order is signed alone, and nothing is written of this.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct InclusionPath(Vec<Hash>);

/// Not the hashes that lead to a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an inclusion path is 1 to {MAX_HASHES} hashes of 32 bytes each, together as base64")]
pub(super) struct InclusionPathError;

impl InclusionPath {
    /// Whether its order is signed alone.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is signed, of an order that is signed alone by these bytes.
    pub(super) fn signed(&self, alone: Vec<u8>) -> Vec<u8> {
        if self.is_empty() {
            return alone;
        }
        let root = self.0.iter().fold(leaf(&alone), |hash, beside| node(&hash, beside));
        let mut bytes = Vec::with_capacity(64);
        super::push(&mut bytes, DOMAIN);
        bytes.extend_from_slice(&root);
        bytes
    }
}

/// How each of these ([`MOST`]), which would be signed alone by its bytes, leads to the root of all. One is its own root.
pub(super) fn paths(orders: &[Vec<u8>]) -> Vec<InclusionPath> {
    let mut level: Vec<(Hash, usize)> = orders.iter().map(|alone| (leaf(alone), 1)).collect();
    let mut paths = vec![InclusionPath::default(); level.len()];
    while level.len() > 1 {
        let mut first = 0;
        let join = |pair: &[(Hash, usize)]| match pair {
            [(left, of_left), (right, of_right)] => {
                let (middle, end) = (first + of_left, first + of_left + of_right);
                paths[first..middle].iter_mut().for_each(|path| path.0.push(*right));
                paths[middle..end].iter_mut().for_each(|path| path.0.push(*left));
                first = end;
                (node(left, right), of_left + of_right)
            }
            // The last of an odd number goes on as it is.
            alone => {
                let (hash, count) = alone[0];
                first += count;
                (hash, count)
            }
        };
        level = level.chunks(2).map(join).collect();
    }
    paths
}

fn leaf(alone: &[u8]) -> Hash {
    hash(LEAF, [alone, &[]])
}

fn node(one: &Hash, other: &Hash) -> Hash {
    hash(NODE, if one <= other { [one, other] } else { [other, one] })
}

fn hash(kind: u8, parts: [&[u8]; 2]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

impl TryFrom<String> for InclusionPath {
    type Error = InclusionPathError;

    fn try_from(text: String) -> Result<Self, InclusionPathError> {
        let bytes = STANDARD.decode(text).map_err(|_| InclusionPathError)?;
        let (hashes, rest) = bytes.as_chunks();
        let good = rest.is_empty() && (1..=MAX_HASHES).contains(&hashes.len());
        good.then(|| Self(hashes.to_vec())).ok_or(InclusionPathError)
    }
}

impl From<InclusionPath> for String {
    fn from(path: InclusionPath) -> Self {
        STANDARD.encode(path.0.as_flattened())
    }
}

impl fmt::Debug for InclusionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InclusionPath({} hashes)", self.0.len())
    }
}
