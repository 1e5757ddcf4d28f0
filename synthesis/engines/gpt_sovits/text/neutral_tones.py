"""Words whose last syllable has no tone of its own in standard Mandarin, and doubled or suffixed words that keep it.

Written for this project from what the standard dictionary (Xiandai Hanyu Cidian) and the official word list of the
Putonghua test mark as neutral; words that the suffix rules of tone_sandhi.py already cover are left out.
"""

from __future__ import annotations

_PEOPLE = """
爱人 大夫 大爷 弟兄 东家 闺女 姑娘 寡妇 伙计 姐夫 街坊 老婆 老太 老头 老爷 媒人 木匠 石匠 铁匠 娘家 奴才 女婿
朋友 婆家 亲戚 亲家 少爷 上司 师父 师傅 特务 媳妇 先生 小伙 兄弟 秀才 学生 丫头 丈夫 丈人 祖宗 状元 财主 道士
和尚 喇嘛 哑巴 妖精 护士 人家 外甥 妯娌 菩萨 冤家 姥爷 父亲 母亲 畜生 怪物 家伙 对头 帮手
"""
_BODY = """
巴掌 耳朵 胳膊 骨头 脊梁 眉毛 脑袋 屁股 拳头 舌头 头发 唾沫 尾巴 下巴 眼睛 指甲 指头 嘴巴 喉咙
"""
_THINGS = """
棒槌 包袱 簸箕 补丁 扁担 苍蝇 柴火 窗户 锄头 刺猬 灯笼 点心 豆腐 风筝 甘蔗 高粱 膏药 疙瘩 跟头 罐头 蛤蟆 行李
核桃 狐狸 胡琴 葫芦 嫁妆 戒指 口袋 窟窿 喇叭 篱笆 粮食 铃铛 萝卜 骆驼 码头 馒头 棉花 蘑菇 木头 牌楼 铺盖 葡萄
琵琶 枇杷 荸荠 钥匙 扫帚 笤帚 烧饼 牲口 石榴 石头 首饰 算盘 跳蚤 胭脂 烟筒 衙门 秧歌 衣服 衣裳 月饼 月亮 云彩
帐篷 招牌 枕头 芝麻 庄稼 作坊 玻璃 玫瑰 栅栏 棺材 馄饨 蚂蚱 泥鳅 薄荷 槟榔 蜡烛 鸳鸯 凤凰 咖喱 琉璃 太阳 东西
买卖 里脊 胡同 弄堂 牢骚 盘缠 糨糊 砚台 浪头 念头 苗头 炊帚
"""
_ACTIONS = """
巴结 拨弄 裁缝 称呼 耷拉 答应 打扮 打点 打发 打量 打算 打听 提防 耽搁 耽误 动弹 嘟囔 对付 告诉 咕噜 含糊 叫唤
将就 讲究 咳嗽 张罗 招呼 折腾 琢磨 眨巴 转悠 嘱咐 使唤 收拾 拾掇 商量 疏忽 思量 算计 挑剔 挖苦 喜欢 吓唬 养活
吆喝 应酬 认识 忙活 眯缝 迷糊 难为 念叨 欺负 溜达 连累 翻腾 扑腾 哆嗦 嘀咕 惦记 糟蹋 抬举 凑合 休息 伺候 佩服
刺激 熟悉 报复 包涵 盘算 委屈 倒腾 照顾
"""
_QUALITIES = """
白净 别扭 聪明 大方 大意 地道 动静 福气 干事 工夫 功夫 规矩 厚道 糊涂 活泼 火候 红火 机灵 结实 精神 客气 快活
宽敞 困难 阔气 懒得 老实 累赘 厉害 利害 利落 利索 力气 凉快 马虎 麻烦 麻利 冒失 门道 苗条 明白 名堂 名字 模糊
能耐 暖和 脾气 便宜 漂亮 勤快 清楚 热闹 软和 实在 世故 舒服 舒坦 爽快 踏实 体面 痛快 妥当 稳当 稀罕 希罕 相声
消息 小气 笑话 心思 新鲜 秀气 学问 冤枉 匀称 运气 扎实 知识 壮实 自在 字号 主意 记号 记性 见识 架势 交情 官司
差事 本事 比方 部分 地方 队伍 多么 多少 故事 关系 行当 合同 情形 前头 后头 上头 里头 外头 生意 时候 事情 似的
收成 岁数 位置 意思 意识 这个 那个 这么 那么 怎么 什么 在乎 窝囊 邋遢 寒碜 滑溜 亮堂 牙碜 正经 出息 志气 丧气
甜头 费用 逻辑 编辑 悟性 告示 痢疾 疟疾 造化 玄乎
"""
_GRAMMAR = """
为了 除了 不由 一辈 两口
"""
NEUTRAL_TONE_WORDS = frozenset("".join((_PEOPLE, _BODY, _THINGS, _ACTIONS, _QUALITIES, _GRAMMAR)).split())

# Where 子 means a child, a person, a seed or a particle it is no suffix.
_NO_SUFFIX = """
男子 女子 学子 才子 分子 原子 电子 量子 质子 中子 光子 离子 粒子 因子 卵子 精子 莲子 瓜子 石子
"""
# Doubled for "every" or for a picture, not for a short try; or in earnest, with the first of two third tones raised.
_DOUBLED = """
人人 家家 家家户户 年年 日日 夜夜 处处 事事 时时 样样 种种 花花草草 青青 冉冉 袅袅 熙熙 攘攘 整整 哈哈 想想
数数
"""
FULL_TONE_WORDS = frozenset((_NO_SUFFIX + _DOUBLED).split())

# 儿 is a syllable of its own where it means a child or a young one; elsewhere it colours the vowel before it.
_ER_AS_CHILD = """
女儿 男儿 婴儿 幼儿 婴幼儿 孤儿 患儿 少儿 孙儿 侄儿 妻儿 乞儿 宠儿 健儿 弃儿 胎儿 聋儿 混血儿 流浪儿 我儿 为儿
替儿 救儿 护儿 花儿 鸟儿 虫儿 鱼儿 马儿 猫儿 狗儿 猪儿
"""
SEPARATE_ER_WORDS = frozenset(_ER_AS_CHILD.split())
# Coloured although jieba takes them for names, adjectives or abbreviations.
COLOURED_ER_WORDS = frozenset(("媳妇儿", "胡同儿", "老头儿", "小院儿", "范儿"))
