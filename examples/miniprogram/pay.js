// Paying in a mini-program. What wx.requestPayment says is no proof of payment: "ok" may be
// forged, "cancel" may come after the money went. Whatever it says, ask the shop's own server,
// which calls kit.query_order (examples/flask_shop.py) and settles what WeChat Pay answers.

const SHOP = 'https://shop.example' // a request domain of the mini-program
const TRIES = 5 // of asking while the order is not paid, a second apart

// Resolves with the order's trade_state as the server knows it ('SUCCESS' is paid), or 'UNKNOWN'
// where the server could not be asked: ask again before you place the order anew.
async function pay() {
  const { code } = await wx.login() // for the server: it makes an openid of it, with its secret
  const { out_trade_no: number, payment } = await call('POST', '/orders', { code })
  return new Promise((resolve) => {
    let asked
    const ask = (result) => {
      asked = asked || tradeState(number, isOk(result) ? TRIES : 1) // complete follows the others
      resolve(asked)
    }
    wx.requestPayment({ ...payment, success: ask, fail: ask, complete: ask })
  })
}

async function tradeState(number, tries) {
  try {
    const { trade_state: state } = await call('GET', `/orders/${number}`)
    if (state !== 'NOTPAY' || tries <= 1) return state
  } catch (error) {
    if (tries <= 1) return 'UNKNOWN'
  }
  await new Promise((resolve) => setTimeout(resolve, 1000))
  return tradeState(number, tries - 1)
}

function isOk(result) {
  return result.errMsg === 'requestPayment:ok' // says how patiently to ask, and nothing more
}

function call(method, path, data) {
  return new Promise((resolve, reject) => {
    wx.request({
      url: SHOP + path,
      method,
      data,
      success: ({ statusCode, data: answer }) =>
        statusCode === 200 ? resolve(answer) : reject(new Error(`${path}: ${statusCode}`)),
      fail: reject,
    })
  })
}

module.exports = { pay }
