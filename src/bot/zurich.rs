use super::Robot;

/// 小Zurich, the robot that turns a question into a compliment.
///
/// 你…吗？ is answered with what stands between, unless a decimal digit does; anything else with a
/// plea to say it again. Then every 我 becomes 自己.
///
/// ```
/// let zurich = rejoinder::bot::zurich();
/// assert_eq!(
///     zurich.answer("你觉得我是最帅最帅的吗？").to_string(),
///     "【机器人】小Zurich 觉得自己是最帅最帅的!"
/// );
/// ```
pub fn zurich() -> Robot {
    Robot::builder()
        .rule(r"你(\D+)吗？", "【机器人】小Zurich {1}!")
        .fallback("啊啊啊，【机器人】小Zurich 刚刚脑子出差了，请您再说一次~")
        .substitute("我", "自己")
        .build()
        .expect("the rules are constant and tested")
}
