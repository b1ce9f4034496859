//! Computes constant expressions of a linked module.

use wasm_encoder::ConstExpr;
use wasm_encoder::Encode as _;
use wasm_encoder::reencode::Reencode;
use wasmparser::Operator;

use super::module::Linker;
use super::{Result, Unlinkable};

/// The value of a constant expression.
#[derive(Debug, Clone)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
    /// Any other value, as the expression that computes it in the linked module.
    Other(ConstExpr),
}

impl Constant {
    pub(super) fn expression(&self) -> ConstExpr {
        match self {
            Self::I32(value) => ConstExpr::i32_const(*value),
            Self::I64(value) => ConstExpr::i64_const(*value),
            Self::Other(expression) => expression.clone(),
        }
    }
}

/// Computes an expression of the current member of the group. Globals of other members are replaced by their values,
/// because an expression can only use imported globals.
pub(super) fn compute(linker: &mut Linker<'_>, expression: &wasmparser::ConstExpr<'_>) -> Result<Constant> {
    let mut stack = Vec::new();
    let mut operators = expression.get_operators_reader();
    while !operators.is_end_then_eof() {
        let value = match operators.read()? {
            Operator::I32Const { value } => Constant::I32(value),
            Operator::I64Const { value } => Constant::I64(value),
            Operator::GlobalGet { global_index } => linker.global(global_index)?,
            operator @ (Operator::I32Add
            | Operator::I32Sub
            | Operator::I32Mul
            | Operator::I64Add
            | Operator::I64Sub
            | Operator::I64Mul) => {
                let (right, left) = (stack.pop().ok_or(Unlinkable)?, stack.pop().ok_or(Unlinkable)?);
                calculate(&operator, &left, &right)?
            }
            operator @ (Operator::RefNull { .. }
            | Operator::RefFunc { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::V128Const { .. }) => {
                let mut bytes = Vec::new();
                linker.instruction(operator)?.encode(&mut bytes);
                Constant::Other(ConstExpr::raw(bytes))
            }
            _ => return Err(Unlinkable),
        };
        stack.push(value);
    }
    let value = stack.pop().ok_or(Unlinkable)?;
    if stack.is_empty() { Ok(value) } else { Err(Unlinkable) }
}

fn calculate(operator: &Operator<'_>, left: &Constant, right: &Constant) -> Result<Constant> {
    Ok(match (operator, left, right) {
        (Operator::I32Add, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_add(*right)),
        (Operator::I32Sub, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_sub(*right)),
        (Operator::I32Mul, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_mul(*right)),
        (Operator::I64Add, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_add(*right)),
        (Operator::I64Sub, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_sub(*right)),
        (Operator::I64Mul, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_mul(*right)),
        _ => return Err(Unlinkable),
    })
}
